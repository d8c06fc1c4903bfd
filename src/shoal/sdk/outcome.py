"""What becomes of a task whose handler did not return: pure, so that each rule can be tested without a broker."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from shoal.sdk.task import Reject, Retry, Task

TASK_ID = "Shoal-Task-Id"
MESSAGE_ID = "Nats-Msg-Id"
REASON_BYTES = 1024
TRACEBACK_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Again:
    """Hand the task back; it is delivered again after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Dead:
    """Move the task to the dead letters."""

    reason: str


def outcome_of(error: BaseException, task: Task, delay_s: float) -> Again | Dead:
    """What becomes of `task` after `error`; `delay_s` is the delay unless the error names one."""
    if isinstance(error, Reject):
        return Dead(f"rejected: {error.reason}")
    if task.attempt >= task.max_attempts:
        return Dead(f"failed {task.attempt} of {task.max_attempts} times: {_one_line(error)}")
    if isinstance(error, Retry) and error.delay_s is not None:
        return Again(max(0.0, error.delay_s))
    return Again(delay_s)


def overdelivered(task: Task) -> Dead | None:
    """A task that no worker ever answered for, as often as it may be tried: each of them died, or was stopped."""
    if task.attempt <= task.max_attempts:
        return None
    return Dead(f"delivered {task.attempt - 1} times, and no worker finished it (killed, out of memory, or stopped)")


def retry_delay_s(attempt: int, *, first_s: float, max_s: float, jitter: float) -> float:
    """The delay after a failed `attempt` (from 1): doubled each time up to `max_s`, times 0.5 to 1.5.

    `jitter` is from [0, 1); without it tasks that failed together would all come back together.
    """
    grown = first_s * 2.0 ** min(attempt - 1, 30)
    return min(grown, max_s) * (0.5 + jitter)


def dead_letter_headers(
    task: Task, reason: str, error: BaseException | None, *, key: str, agent: str, room_bytes: int
) -> dict[str, str]:
    """The headers of a dead letter, those of the task included.

    `key` identifies this death, so that a worker which dies between writing the letter and acknowledging the task
    does not leave two. The traceback is left out, and the reason cut, where both are more than `room_bytes`.
    """
    headers = {name: value for name, value in task.headers.items() if not name.startswith(("Nats-", "Shoal-"))}
    headers |= {
        MESSAGE_ID: key,
        TASK_ID: task.id,
        "Shoal-Reason": _header(reason, min(REASON_BYTES, max(0, room_bytes // 2))),
        "Shoal-Attempts": str(min(task.attempt, task.max_attempts)),
        "Shoal-Agent": agent,
        "Shoal-Published-At": f"{task.published_at:.3f}",
    }
    text = "".join(traceback.format_exception(error)) if error is not None else ""
    if text and room_bytes >= REASON_BYTES + TRACEBACK_BYTES:
        headers["Shoal-Traceback"] = _header(text, TRACEBACK_BYTES, keep_end=True)
    return headers


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _header(text: str, limit_bytes: int, *, keep_end: bool = False) -> str:
    """A header is one line of text: line breaks are written as `\\n`, and what is too long is cut."""
    line = text.strip().replace("\\", "\\\\").replace("\r", "").replace("\n", "\\n")
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    encoded = line.encode("utf-8", "replace")
    if len(encoded) > limit_bytes:
        encoded = encoded[-limit_bytes:] if keep_end else encoded[:limit_bytes]
    return encoded.decode("utf-8", "ignore")


def dead_letter_key(stream: str, sequence: int, published_at: float) -> str:
    """The same for every delivery of one task, another for the next task of the same id."""
    return f"dead:{stream}:{sequence}:{published_at:.6f}"


def task_id(headers: Mapping[str, str], stream: str, sequence: int) -> str:
    """The key that the task was published under; a task without any is named by its place in the stream."""
    return headers.get(TASK_ID) or headers.get(MESSAGE_ID) or f"{stream}:{sequence}"
