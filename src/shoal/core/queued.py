"""What lies in a queue, as values: told by whoever looks into the broker, and shown by the API as it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """One queue. `in_progress` counts tasks that are worked on, or wait for another attempt; `dead` dead letters.

    The fields are those of `shoal.api.views.QueueView`, less the names of the agents that consume.
    """

    name: str
    waiting: int
    in_progress: int
    dead: int


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task or dead letter as it lies in its stream, its payload as text (or base64 where it is none: `encoding`).

    `attempts` of a dead letter is how often it was tried; of a task in the queue, 1 when it was delivered at least
    once. `at` is when it was published, or died, in epoch seconds. `traceback` is that of a dead letter's last failure.
    """

    id: str
    queue: str
    attempts: int
    payload: str
    at: float | None
    reason: str = ""
    encoding: str = "utf-8"
    traceback: str = ""
