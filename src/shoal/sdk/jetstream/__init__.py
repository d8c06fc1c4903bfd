"""Queues on NATS JetStream: what `shoal.sdk` loads when a queue's URL is a NATS one."""
