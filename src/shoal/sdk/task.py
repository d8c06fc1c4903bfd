"""What a handler sees: the task, and the two exceptions that say what shall become of it.

Plain classes, since `dataclasses` alone would cost half of the time that importing this package may take.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing does, whose import would take most of the time of this one
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class QueueError(Exception):
    """The broker refused, did not answer in time, or the queue is not declared. The message says what to do."""


class Retry(Exception):
    """Raise it to have the task again later. It counts as an attempt.

    `delay_s`: seconds until then at least; None takes the worker's growing delay.
    """

    def __init__(self, reason: str = "retry asked for", *, delay_s: float | None = None) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class Reject(Exception):
    """Raise it when no attempt can ever succeed: the task goes to the dead letters at once, with `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Task:
    """One delivery of a task.

    `id` is its idempotency key: what it was published under, the same on every attempt and after a redrive. A task may
    be delivered more than once (a worker that died after its work, before its acknowledgement), so what must not
    happen twice is guarded with `id`. `attempt` counts from 1 up to `max_attempts`. `published_at` is epoch seconds.
    """

    __slots__ = ("attempt", "data", "headers", "id", "max_attempts", "published_at", "queue")

    def __init__(
        self,
        id: str,
        data: bytes,
        *,
        queue: str = "",
        attempt: int = 1,
        max_attempts: int = 5,
        published_at: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.id = id
        self.data = data
        self.queue = queue
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.published_at = published_at
        self.headers: Mapping[str, str] = headers or {}

    def json(self) -> Any:
        """The payload as JSON. Raises ValueError when it is none."""
        import json  # noqa: PLC0415 - light import

        return json.loads(self.data)

    def __repr__(self) -> str:
        return f"Task(id={self.id!r}, queue={self.queue!r}, attempt={self.attempt}, {len(self.data)} bytes)"
