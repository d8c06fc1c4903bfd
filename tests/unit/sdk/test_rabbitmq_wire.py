"""Tasks on RabbitMQ as values: attempts, marks, and where a task waits for the next one."""

from __future__ import annotations

from typing import Any

from aiormq.abc import DeliveredMessage
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from shoal.sdk.rabbitmq.wire import LONGEST_DELAY_S, again_headers, mark_of, properties_of, task_of, waiting_queue
from shoal.sdk.settings import RabbitMqSettings

SETTINGS = RabbitMqSettings("q", "amqp://h", "shoal.f.q", "shoal.f", 5, 30.0)


def message(headers: dict[str, Any] | None = None, message_id: str | None = "m") -> DeliveredMessage:
    properties = Basic.Properties(message_id=message_id, headers=headers)
    delivery = Basic.Deliver("c", 1, False, "shoal.f", "shoal.f.q")
    return DeliveredMessage(delivery, ContentHeader(0, 1, properties), b"x", None)  # pyright: ignore[reportArgumentType] - no channel is needed


@given(st.floats(0, LONGEST_DELAY_S * 2))
def test_a_task_waits_in_the_queue_of_its_delay(delay_s: float) -> None:
    """Behind none whose delay is more than four times its own, one second at least, and never less than its delay."""
    name, arguments = waiting_queue(SETTINGS, delay_s)
    up_to_s = int(name.removeprefix("shoal.f.q.again."))
    assert up_to_s >= min(delay_s, LONGEST_DELAY_S)
    assert up_to_s == 1 or up_to_s / 4 < delay_s
    assert arguments["x-dead-letter-strategy"] == "at-least-once"
    assert (arguments["x-dead-letter-exchange"], arguments["x-dead-letter-routing-key"]) == ("shoal.f", "shoal.f.q")
    expiration = properties_of("m", {}, expires_s=delay_s).expiration
    assert expiration is not None and int(expiration) < 2**32


def test_attempts_are_those_of_the_header_and_the_deliveries_of_this_copy() -> None:
    """A broker of version 4.3 counts what was only handed back apart."""
    assert task_of(message(), SETTINGS).attempt == 1
    assert task_of(message({"x-delivery-count": 2}), SETTINGS).attempt == 3
    assert task_of(message({"Shoal-Attempts": "2", "x-delivery-count": 1}), SETTINGS).attempt == 4
    assert task_of(message({"x-delivery-count": 1, "x-acquired-count": 3}), SETTINGS).attempt == 4


def test_the_copy_for_the_next_attempt_is_the_same_task() -> None:
    """It carries how often it was tried, and nothing that RabbitMQ wrote: what it says of dead-lettered messages would
    have a later copy dropped as one that goes in circles."""
    first = task_of(message({"Shoal-Task-Id": "order", "kind": "a", "x-death": [], "x-delivery-count": 1}), SETTINGS)
    headers = again_headers(first)
    assert "x-death" not in headers and headers["kind"] == "a"
    second = task_of(message(dict(headers)), SETTINGS)
    assert (second.id, second.attempt, second.published_at) == ("order", 3, first.published_at)
    assert mark_of(message(dict(headers)), second) != mark_of(message(), first)


def test_a_task_of_another_program_needs_no_headers() -> None:
    """Its id is that of the message, else of its content; without an id it is taken for no other."""
    assert task_of(message(), SETTINGS).id == "m"
    bare = message(message_id=None)
    assert task_of(bare, SETTINGS).id == task_of(message(message_id=None), SETTINGS).id
    assert task_of(bare, SETTINGS).id.startswith("q:")
    assert mark_of(bare, task_of(bare, SETTINGS)) is None
    headers = task_of(message({"raw": b"\xff", "n": 3}), SETTINGS).headers
    assert headers == {"raw": "\N{REPLACEMENT CHARACTER}", "n": "3"}
