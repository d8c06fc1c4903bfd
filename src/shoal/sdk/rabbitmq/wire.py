"""How tasks and dead letters look on RabbitMQ, and the queues in which failed tasks wait. Pure.

RabbitMQ delays no message by itself. What failed is put into a queue that nobody consumes, where it expires after its
delay and goes back by that queue's dead-letter exchange. Messages expire at the head of a queue alone, so one with a
long delay would hold up all behind it: there is a queue for delays up to 1 s, one up to 4 s, one up to 16 s, and so on.
A task may come later than its delay, by at most four times, and never before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from shoal.sdk.outcome import TASK_ID
from shoal.sdk.settings import RabbitMqSettings
from shoal.sdk.task import Task

ATTEMPTS = "Shoal-Attempts"
PUBLISHED_AT = "Shoal-Published-At"
LONGEST_DELAY_S = 4.0**11  # 48 days; RabbitMQ's own limit is 49
NO_LIMIT = 1_000_000
_STEP = 4
_COUNTS = ("x-delivery-count", "x-acquired-count")


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells one copy of a task from all others, however often it is delivered."""

    message_id: str
    published_at: float
    attempts: int


def waiting_queue(settings: RabbitMqSettings, delay_s: float) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of the queue in which a task waits for its next attempt. RabbitMQ moves what expires
    at least once, and a crash between loses nothing; its default would drop it."""
    up_to_s = 1
    while up_to_s < min(delay_s, LONGEST_DELAY_S):
        up_to_s *= _STEP
    return f"{settings.name}.again.{up_to_s}", {
        "x-queue-type": "quorum",
        "x-delivery-limit": NO_LIMIT,
        "x-dead-letter-exchange": settings.exchange,
        "x-dead-letter-routing-key": settings.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def task_of(message: DeliveredMessage, settings: RabbitMqSettings) -> Task:
    """The task in a delivery. Attempts are those that a header counts, and the deliveries of this copy."""
    properties = message.header.properties
    headers = _texts(properties.headers or {})
    named = headers.get(TASK_ID) or properties.message_id
    at = headers.get(PUBLISHED_AT, "")
    return Task(
        named or f"{settings.queue}:{hashlib.sha256(message.body).hexdigest()[:16]}",
        message.body,
        queue=settings.queue,
        attempt=_count(headers.get(ATTEMPTS)) + max(_count(headers.get(key)) for key in _COUNTS) + 1,
        max_attempts=settings.max_attempts,
        published_at=float(at) if at else (properties.timestamp or datetime.fromtimestamp(0, UTC)).timestamp(),
        headers={name: value for name, value in headers.items() if not name.startswith("x-")},
    )


def mark_of(message: DeliveredMessage, task: Task) -> Mark | None:
    """None for a message without an id: it can't be told from another one."""
    message_id = message.header.properties.message_id
    if not message_id:
        return None
    return Mark(message_id, task.published_at, _count(task.headers.get(ATTEMPTS)))


def properties_of(message_id: str, headers: Mapping[str, str], *, expires_s: float | None = None) -> Basic.Properties:
    """Of a message that outlives the broker; `expires_s` from now on."""
    return Basic.Properties(
        message_id=message_id,
        delivery_mode=2,
        headers=dict(headers),
        timestamp=datetime.now(UTC).replace(microsecond=0),
        expiration=None if expires_s is None else str(round(min(expires_s, LONGEST_DELAY_S) * 1000)),
    )


def again_headers(task: Task) -> dict[str, str]:
    """Of the copy that waits for the next attempt: those of the task, and how often it was tried."""
    kept = {name: value for name, value in task.headers.items() if not name.startswith("x-")}
    return {**kept, TASK_ID: task.id, ATTEMPTS: str(task.attempt), PUBLISHED_AT: f"{task.published_at:.6f}"}


def _texts(headers: Mapping[str, Any]) -> dict[str, str]:
    """A header may be of any of AMQP's types; a task's are text."""
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for name, value in headers.items()
    }


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
