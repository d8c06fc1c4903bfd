"""What becomes of a task whose handler failed, without a broker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.sdk import Reject, Retry, Task
from shoal.sdk.outcome import (
    Again,
    Dead,
    dead_letter_headers,
    dead_letter_key,
    outcome_of,
    overdelivered,
    retry_delay_s,
    task_id,
)


def a_task(attempt: int = 1, max_attempts: int = 3, headers: dict[str, str] | None = None) -> Task:
    return Task("id-1", b"data", attempt=attempt, max_attempts=max_attempts, headers=headers)


def test_failures_come_again_until_the_last_attempt() -> None:
    """Retry may name the delay, but not the number of attempts; Reject needs no further attempt."""
    assert outcome_of(ValueError("x"), a_task(1), 2.0) == Again(2.0)
    assert outcome_of(Retry(delay_s=9), a_task(2), 2.0) == Again(9)
    assert outcome_of(Retry(delay_s=-1), a_task(2), 2.0) == Again(0.0)
    assert outcome_of(Retry(), a_task(2), 2.0) == Again(2.0)
    assert outcome_of(ValueError("x"), a_task(3), 2.0) == Dead("failed 3 of 3 times: ValueError: x")
    assert outcome_of(Retry("busy", delay_s=9), a_task(3), 2.0) == Dead("failed 3 of 3 times: Retry: busy")
    assert outcome_of(Reject("no image"), a_task(1), 2.0) == Dead("rejected: no image")


def test_a_task_that_no_worker_survives_is_not_run_again() -> None:
    """One delivery more than attempts: every one ended with the death of its worker."""
    assert overdelivered(a_task(3)) is None
    dead = overdelivered(a_task(4))
    assert dead is not None
    assert dead.reason.startswith("delivered 3 times")


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.01, 10), st.floats(1, 1000))
def test_delays_grow_up_to_their_bound(attempt: int, jitter: float, first_s: float, factor: float) -> None:
    """Never hot, never beyond one and a half times the bound, never shorter for a later attempt at equal jitter."""
    max_s = first_s * factor
    delay_s = retry_delay_s(attempt, first_s=first_s, max_s=max_s, jitter=jitter)
    assert 0.5 * first_s <= delay_s <= 1.5 * max_s
    assert retry_delay_s(attempt + 1, first_s=first_s, max_s=max_s, jitter=jitter) >= delay_s


def test_a_dead_letter_keeps_what_the_task_was_and_says_why() -> None:
    """The task's own headers stay, the broker's don't; reason and traceback are single lines."""
    task = a_task(3, headers={"traceparent": "00-1", "Nats-Msg-Id": "id-1", "Nats-Expected-Stream": "S"})
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        headers = dead_letter_headers(task, "two\nlines", error, key="dead:S:1:2", agent="images", room_bytes=60_000)
    assert headers["traceparent"] == "00-1"
    assert headers["Nats-Msg-Id"] == "dead:S:1:2"
    assert headers["Shoal-Task-Id"] == "id-1"
    assert headers["Shoal-Reason"] == "two\\nlines"
    assert headers["Shoal-Attempts"] == "3"
    assert headers["Shoal-Traceback"].endswith("ValueError: two\\nlines")
    assert "Nats-Expected-Stream" not in headers
    assert not any("\n" in value or "\r" in value for value in headers.values())


@given(st.text(max_size=5000), st.integers(0, 30_000))
def test_headers_fit_the_room_and_stay_one_line(reason: str, room_bytes: int) -> None:
    """Whatever an exception says: no header can break the protocol or the broker's limit."""
    error = RuntimeError(reason)
    headers = dead_letter_headers(a_task(), reason, error, key="k", agent="a", room_bytes=room_bytes)
    texts = [headers["Shoal-Reason"], headers.get("Shoal-Traceback", "")]
    assert sum(len(text.encode()) for text in texts) <= room_bytes
    assert all(text.isprintable() for text in texts)


def test_ids() -> None:
    """The id is the key of publishing, also after a redrive; a death's key is the same for every delivery."""
    assert task_id({"Nats-Msg-Id": "a"}, "S", 7) == "a"
    assert task_id({"Nats-Msg-Id": "redrive:1", "Shoal-Task-Id": "a"}, "S", 7) == "a"
    assert task_id({}, "S", 7) == "S:7"
    assert dead_letter_key("S", 7, 1.5) == dead_letter_key("S", 7, 1.5) != dead_letter_key("S", 8, 1.5)
