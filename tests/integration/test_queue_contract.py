"""What producers and people can rely on, on every broker: the same cases against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from queues_broker import Broker, dead, depth, environment, running, until, working

from shoal.errors import NotFound
from shoal.sdk import QueueError, Task, publish, worker
from shoal.spec.model import Queue


@pytest.fixture
async def broker(new_broker: Callable[..., Broker]) -> AsyncIterator[Broker]:
    async with running(new_broker()) as broker:
        yield broker


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    with environment({}):
        yield


async def write_dead_letters(broker: Broker, ids: list[str]) -> None:
    for id in ids:
        headers = {"Nats-Msg-Id": f"dead:{id}", "Shoal-Task-Id": id, "Shoal-Reason": "broken", "Shoal-Attempts": "3"}
        await broker.write_dead("images", headers, b"payload")


async def test_publishing_is_confirmed_and_bounded(broker: Broker) -> None:
    """`id` is the task's; what is too large or not declared is refused before it is sent. NATS drops a second task of
    the same id, RabbitMQ does not, and says so in the plan."""
    with environment(broker.environment("front")):
        assert await publish("images", "a", id="order-1") == "order-1"
        assert await publish("images", "a", id="order-1") == "order-1"
        with pytest.raises(QueueError, match="too large"):
            await publish("images", b"x" * (1024 * 1024 + 1))
        await publish("images", b"x" * 1024 * 1024)
        with pytest.raises(QueueError, match="not declared"):
            await publish("letters", "a")
    assert await depth(broker) == (2 if broker.deduplicates else 3)
    assert await depth(broker, "letters") == 0


async def test_depth_counts_what_waits_and_what_is_worked_on(broker: Broker) -> None:
    """It shrinks by acknowledging alone: a worker that is busy with the last task is not taken for idle."""
    started, finish = asyncio.Semaphore(0), asyncio.Event()

    @worker(concurrency=2)
    async def handle(task: Task) -> None:
        started.release()
        await finish.wait()

    with environment(broker.environment("front")):
        for number in range(5):
            await publish("images", {"number": number})
    assert await depth(broker) == 5
    with environment(broker.environment("worker")):
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(handle.serve())
            await started.acquire()
            await started.acquire()
            assert await depth(broker) == 5

            async def counts() -> tuple[int, int]:
                (images,) = [each for each in await broker.admin.list() if each.name == "images"]
                return images.waiting, images.in_progress

            async def seen() -> bool:
                return await counts() == (3, 2)

            await until(seen, "three that wait, and two in progress")
            assert await depth(broker) == 5
            finish.set()

            async def empty() -> bool:
                return await depth(broker) == 0

            await until(empty, "an empty queue")
            handle.stop()
            await serving


async def test_peeking_takes_nothing(broker: Broker) -> None:
    """Tasks are shown as they lie there, text as text and the rest as base64."""
    with environment(broker.environment("front")):
        await publish("images", {"a": 1}, id="first")
        await publish("images", b"\xff\x00", id="second")
    first, second = await broker.admin.peek("images")
    assert (first.id, first.payload, first.encoding, first.attempts) == ("first", '{"a": 1}', "utf-8", 0)
    assert (second.id, second.payload, second.encoding) == ("second", "/wA=", "base64")
    assert first.at is not None
    assert [task.id for task in await broker.admin.peek("images", limit=1)] == ["first"]
    assert await depth(broker) == 2
    with pytest.raises(NotFound, match="no queue 'nothing' in this fleet; there are: "):
        await broker.admin.peek("nothing")
    with pytest.raises(NotFound, match="no queue 'image' in this fleet; did you mean 'images'"):
        await broker.admin.redrive("image")


async def test_redrive_puts_dead_letters_back(broker: Broker) -> None:
    """A redriven task keeps its id, though it came a moment ago, and leaves the dead letters."""
    with environment(broker.environment("front")):
        await publish("images", b"payload", id="a")
    assert await broker.admin.purge("images") == 1
    await write_dead_letters(broker, ["a", "b", "c"])
    assert [task.id for task in await broker.admin.peek("images", dead=True)] == ["a", "b", "c"]
    assert (await broker.admin.peek("images", dead=True))[0].reason == "broken"
    with pytest.raises(NotFound, match=r"no dead letter nope, z"):
        await broker.admin.redrive("images", ["z", "nope"])
    assert await broker.admin.redrive("images", ["a"]) == 1
    assert [task.id for task in await broker.admin.peek("images")] == ["a"]
    assert await broker.admin.redrive("images") == 2
    assert await dead(broker) == 0
    assert [task.id for task in await broker.admin.peek("images")] == ["a", "b", "c"]


async def test_what_a_worker_said_of_a_failure_is_masked(broker: Broker) -> None:
    """Reason and traceback, not what the task carries."""
    headers = {"Shoal-Reason": "no login with s3cret", "Shoal-Traceback": "line\\nValueError: s3cret"}
    await broker.write_dead("images", {"Nats-Msg-Id": "dead:x", **headers}, b"s3cret")
    admin = broker.masked_admin(lambda text: text.replace("s3cret", "***"))
    (letter,) = await admin.peek("images", dead=True)
    await admin.close()
    assert (letter.reason, letter.traceback) == ("no login with ***", "line\nValueError: ***")
    assert letter.payload == "s3cret"


async def test_kill_9_of_the_broker_loses_no_confirmed_task(broker: Broker) -> None:
    """What `publish` returned from is there after the server was killed in the middle; once, where it drops what comes
    again."""
    confirmed: list[str] = []
    stopping = asyncio.Event()

    async def produce(producer: int) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            confirmed.append(await publish("images", b"x" * 200, id=f"{producer}-{number}", timeout_s=120))

    with environment(broker.environment("front")):
        async with asyncio.TaskGroup() as group:
            for producer in range(16):
                group.create_task(produce(producer))
            for _ in range(2 if broker.name == "nats" else 1):  # the other takes long to start
                enough = len(confirmed) + 400
                await until(lambda enough=enough: len(confirmed) >= enough, "publishes")
                broker.kill()
                await asyncio.to_thread(broker.start)
            enough = len(confirmed) + 100
            await until(lambda: len(confirmed) >= enough, "publishes after the restart")
            stopping.set()
    stored: list[str] = []

    @worker(concurrency=64)
    async def collect(task: Task) -> None:
        stored.append(task.id)

    async with working(broker, collect):
        await until(lambda: set(confirmed) <= set(stored), "every confirmed task")
    assert len(stored) == len(set(stored)) or not broker.deduplicates


async def test_a_queue_that_goes_and_comes_back_has_lost_nothing(broker: Broker) -> None:
    """Its stream stays with its tasks and dead letters, is counted, and serves again with the settings of then."""
    with environment(broker.environment("front")):
        await publish("images", b"one")
    await write_dead_letters(broker, ["dead"])
    await broker.queues.ensure({"letters": Queue()})
    (images,) = [counts for counts in await broker.admin.list() if counts.name == "images"]
    assert (images.waiting, images.dead) == (1, 1)
    await broker.queues.ensure({"letters": Queue(), "images": Queue(max_attempts=7)})
    assert [task.payload for task in await broker.admin.peek("images")] == ["one"]
