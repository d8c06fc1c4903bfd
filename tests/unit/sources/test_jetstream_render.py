"""What Shoal asks of JetStream for a queue, as values."""

from __future__ import annotations

from shoal.sources.jetstream import render_consumer, render_dead_stream, render_stream
from shoal.sources.jetstream_admin import parse_headers
from shoal.spec.model import Queue


def test_a_queue_keeps_tasks_until_they_are_acknowledged() -> None:
    """Work-queue retention on disk, and a full disk refuses instead of dropping."""
    stream = render_stream("warehouse", "image-tasks")
    assert stream["name"] == "WAREHOUSE_IMAGE_TASKS"
    assert stream["subjects"] == ["shoal.warehouse.image-tasks"]
    assert (stream["retention"], stream["storage"], stream["discard"]) == ("workqueue", "file", "new")
    assert stream["duplicate_window"] == 120_000_000_000


def test_dead_letters_stay() -> None:
    """A stream of their own without an age limit, under a subject that the queue's does not match."""
    stream = render_dead_stream("warehouse", "image-tasks")
    assert stream["name"] == "WAREHOUSE_IMAGE_TASKS_DEAD"
    assert stream["subjects"] == ["shoal.warehouse.image-tasks.dead"]
    assert (stream["retention"], stream["max_age"]) == ("limits", 0)


def test_the_broker_never_gives_up_on_a_task_by_itself() -> None:
    """Attempts are the workers' affair; a thousand tasks that wait for another attempt don't stop the queue."""
    consumer = render_consumer("warehouse", "image-tasks", Queue(ack_wait=0.5, max_attempts=7))
    assert consumer["max_deliver"] == -1
    assert consumer["ack_wait"] == 500_000_000
    assert consumer["max_ack_pending"] > 1_000
    assert consumer["metadata"]["shoal.max_attempts"] == "7"


def test_headers_are_read_from_their_wire_form() -> None:
    """Values may hold colons; a task without headers has none."""
    block = b"NATS/1.0\r\nNats-Msg-Id: a:b\r\nShoal-Reason: caf\xc3\xa9\r\n\r\n"
    assert parse_headers(block) == {"Nats-Msg-Id": "a:b", "Shoal-Reason": "café"}
    assert parse_headers(b"") == {}
