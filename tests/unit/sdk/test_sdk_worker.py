"""The surface that agents see: decorator, task, settings, calling of handlers, and how light it is to import."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shoal.sdk import QueueError, Task, Worker, worker
from shoal.sdk.handling import call_handler
from shoal.sdk.jetstream.delivery import Policy
from shoal.sdk.publishing import encode_payload
from shoal.sdk.rabbitmq.sending import read_credentials
from shoal.sdk.settings import QueueSettings, RabbitMqSettings, read_grace_period_s, read_queue_settings

ENVIRONMENT = {
    "SHOAL_QUEUE": "image-tasks",
    "SHOAL_QUEUE_IMAGE_TASKS_URL": "nats://u:p@h:1",
    "SHOAL_QUEUE_IMAGE_TASKS_STREAM": "F_IMAGE_TASKS",
    "SHOAL_QUEUE_IMAGE_TASKS_CONSUMER": "workers",
    "SHOAL_QUEUE_IMAGE_TASKS_SUBJECT": "shoal.f.image-tasks",
}


def test_importing_loads_neither_asyncio_nor_the_broker() -> None:
    """Agents start often; what they import first must cost next to nothing."""
    code = (
        "import sys; before = set(sys.modules); import shoal.sdk; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    if loaded.returncode != 0:  # an editable installation needs the site module
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()).isdisjoint(
        {"asyncio", "nats", "aiormq", "pathlib", "dataclasses", "inspect", "typing", "json"}
    )


async def test_a_decorated_handler_can_be_called_in_a_test() -> None:
    """With and without options."""

    @worker
    async def plain(task: Task) -> str:
        return task.id

    @worker(concurrency=4)
    def with_options(task: Task) -> object:
        return task.json()

    assert isinstance(plain, Worker)
    assert (plain.concurrency, with_options.concurrency) == (1, 4)
    assert await plain(Task("a", b"")) == "a"
    assert with_options(Task("a", b'{"n": 1}')) == {"n": 1}


def test_options_are_checked() -> None:
    """What can't work is refused where it is written."""
    with pytest.raises(ValueError, match="concurrency is 0"):
        worker(concurrency=0)(print)
    with pytest.raises(ValueError, match="retry_delay_s is 5"):
        worker(retry_delay_s=5, retry_delay_max_s=1)(print)


def test_settings_come_from_the_environment() -> None:
    """The consumed queue by default; an undeclared one is an error that says what to do."""
    settings = read_queue_settings(ENVIRONMENT, None)
    assert settings == read_queue_settings(ENVIRONMENT, "image-tasks")
    assert isinstance(settings, QueueSettings)
    assert (settings.stream, settings.dead_subject) == ("F_IMAGE_TASKS", "shoal.f.image-tasks.dead")
    with pytest.raises(QueueError, match="add `queue: NAME`"):
        read_queue_settings({}, None)
    with pytest.raises(QueueError, match=r"publishes: \[letters\]"):
        read_queue_settings(ENVIRONMENT, "letters")


def test_settings_of_a_queue_on_rabbitmq_name_the_secret_s_file(tmp_path: Path) -> None:
    """User and password are read from it for each connection, so that a new one needs no restart of the process."""
    told = {"URL": "amqp://h", "NAME": "shoal.f.q", "EXCHANGE": "shoal.f", "MAX_ATTEMPTS": "3", "ACK_WAIT_S": "1.5"}
    environment = {f"SHOAL_QUEUE_Q_{key}": value for key, value in told.items()}
    environment |= {"SHOAL_SECRETS": str(tmp_path), "SHOAL_QUEUE_Q_SECRET": "RABBIT"}
    settings = read_queue_settings(environment, "q")
    assert settings == RabbitMqSettings("q", "amqp://h", "shoal.f.q", "shoal.f", 3, 1.5, tmp_path / "RABBIT")
    assert isinstance(settings, RabbitMqSettings)
    with pytest.raises(QueueError, match="RABBIT can't be read: No such file"):
        read_credentials(settings)
    (tmp_path / "RABBIT").write_text("me:p:w\n")
    assert read_credentials(settings) == ("me", "p:w")
    (tmp_path / "RABBIT").write_text("p4ss")
    with pytest.raises(QueueError, match="does not hold user:password"):
        read_credentials(settings)
    del environment["SHOAL_QUEUE_Q_NAME"]
    with pytest.raises(QueueError, match="SHOAL_QUEUE_Q_NAME not set"):
        read_queue_settings(environment, "q")


def test_the_grace_period_ends_before_the_kill() -> None:
    """A fifth of it, two seconds at most, is kept for handing back."""
    assert read_grace_period_s({}) == 8
    assert read_grace_period_s({"SHOAL_STOP_GRACE_PERIOD_S": "120"}) == 118
    assert read_grace_period_s({"SHOAL_STOP_GRACE_PERIOD_S": "0"}) == 0
    with pytest.raises(QueueError, match="expected a number of seconds"):
        read_grace_period_s({"SHOAL_STOP_GRACE_PERIOD_S": "2m"})


def test_the_policy_is_the_consumers() -> None:
    """Defaults where a consumer was made by somebody else."""
    config = {"ack_wait": 1_500_000_000, "metadata": {"shoal.max_attempts": "9"}}
    assert Policy.from_consumer({"config": config}) == Policy(ack_wait_s=1.5, max_attempts=9)
    assert Policy.from_consumer({"config": {}}) == Policy(ack_wait_s=30.0, max_attempts=5)


def test_payloads() -> None:
    """Bytes and text as they are, the rest as JSON."""
    assert encode_payload(b"a") == b"a"
    assert encode_payload("ä") == "ä".encode()
    assert encode_payload({"a": [1]}) == b'{"a": [1]}'
    with pytest.raises(TypeError):
        encode_payload(object())


async def test_every_way_of_failing_is_a_value() -> None:
    """Exceptions, exits and cancellations of the handler's own making; only the caller's cancellation passes."""

    async def cancels_itself(task: Task) -> None:
        raise asyncio.CancelledError

    def exits(task: Task) -> None:
        sys.exit(3)

    def stops(task: Task) -> None:
        raise StopIteration

    assert isinstance(await call_handler(cancels_itself, Task("a", b"")), asyncio.CancelledError)
    assert isinstance(await call_handler(exits, Task("a", b"")), SystemExit)
    assert isinstance(await call_handler(stops, Task("a", b"")), RuntimeError)
    assert await call_handler(lambda task: None, Task("a", b"")) is None

    started = asyncio.Event()

    async def waits(task: Task) -> None:
        started.set()
        await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            calling = group.create_task(call_handler(waits, Task("a", b"")))
            await started.wait()
            calling.cancel()
            await calling


async def test_sync_handlers_run_in_a_thread_with_the_context() -> None:
    """So that they don't stop heartbeats, and tracing still works; a lambda may return a coroutine."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")
    seen: list[object] = []

    def handle(task: Task) -> None:
        seen.extend([variable.get(), threading.current_thread().daemon, threading.current_thread().name])

    async def later(task: Task) -> None:
        seen.append("later")

    assert await call_handler(handle, Task("a", b"")) is None
    assert await call_handler(lambda task: later(task), Task("a", b"")) is None  # noqa: PLW0108 - sync, its result is not
    assert seen == ["seen", True, "task a", "later"]
