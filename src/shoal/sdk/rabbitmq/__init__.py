"""Queues on RabbitMQ: what `shoal.sdk` loads when a queue's URL is an AMQP one."""
