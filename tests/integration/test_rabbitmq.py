"""What is RabbitMQ's own: its traps, its rights, and what it can't do, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from queues_broker import dead, depth, environment, running, send, until, working
from rabbitmq_node import CREDENTIALS, SETTLES_S, OnRabbitMq

from shoal.core.rabbitmq import RabbitMqAddress, queue_name
from shoal.errors import BrokerError
from shoal.sdk import QueueError, Task, publish, worker
from shoal.sources.amqp import Amqp
from shoal.sources.rabbitmq import RabbitMqQueues
from shoal.spec.model import Queue
from testbed.rabbitmq import RabbitMq


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    with environment({}):
        yield


@pytest.fixture
async def broker(tmp_path: Path, rabbitmq_session: RabbitMq) -> AsyncIterator[OnRabbitMq]:
    async with running(OnRabbitMq(tmp_path, rabbitmq_session)) as broker:
        yield broker


@pytest.fixture
async def amqp(broker: OnRabbitMq) -> AsyncIterator[Amqp]:
    """A connection as the administrator."""
    amqp = Amqp(broker.url, "admin:admin")
    yield amqp
    await amqp.close()


async def test_ensuring_twice_changes_nothing(broker: OnRabbitMq) -> None:
    """Also with other attempts, which are no argument of the queue: those could not be changed."""
    await send(broker, "a")
    await broker.ensure()
    await broker.queues.ensure({"images": Queue(max_attempts=9, ack_wait=7)})
    assert await depth(broker) == 1


async def test_a_queue_of_somebody_else_is_left_alone(broker: OnRabbitMq, amqp: Amqp) -> None:
    """The error names the queue and what to do, and nothing is changed."""
    name = queue_name(broker.fleet.fleet, "photos")
    async with amqp.channel() as channel:
        await channel.queue_declare(name, durable=True)
    with pytest.raises(BrokerError, match=r"queue 'photos': the broker has a queue shoal\.ware-house\.photos already"):
        await broker.queues.ensure({"photos": Queue()})
    async with amqp.channel() as channel:
        await channel.queue_declare(name, durable=True)  # an error if it were not as it was


@pytest.mark.parametrize(
    ("fleet", "credentials", "said"),
    [
        ("ware-house", "shoal:wrong", "refuses the user shoal with that password"),
        ("other", CREDENTIALS, "give the user shoal the rights to configure, write and read what begins with shoal"),
        ("ware-house", "guest:guest", "refuses the user guest with that password"),
    ],
)
async def test_what_a_user_may_not_is_said(broker: OnRabbitMq, fleet: str, credentials: str, said: str) -> None:
    """With what to do about it, and without the password."""
    address = RabbitMqAddress(broker.url, broker.address.management_url, credentials)
    queues = RabbitMqQueues(address, fleet)
    with pytest.raises(BrokerError, match="broker ") as refused:
        await queues.ensure({"images": Queue()})
    await queues.close()
    assert said in str(refused.value) and "s3cret" not in str(refused.value)


async def test_a_management_api_that_is_not_there_is_said(broker: OnRabbitMq) -> None:
    """Before anything scales by figures that nobody has."""
    address = RabbitMqAddress(broker.url, f"http://127.0.0.1:{broker.node.port}", CREDENTIALS)
    queues = RabbitMqQueues(address, broker.fleet.fleet)
    with pytest.raises(BrokerError, match="enable the plugin rabbitmq_management there, or say where it is"):
        await queues.ensure({"images": Queue()})
    await queues.close()


async def test_looking_at_tasks_costs_them_no_attempt(broker: OnRabbitMq) -> None:
    """RabbitMQ counts every delivery, and a look is one; after three of them a task of three attempts would be dead."""
    attempts: list[tuple[str, int]] = []

    @worker
    async def handle(task: Task) -> None:
        attempts.append((task.id, task.attempt))

    await send(broker, "a", "b")
    for _ in range(5):
        assert [task.id for task in await broker.admin.peek("images")] == ["a", "b"]
    async with working(broker, handle):
        await until(lambda: len(attempts) == 2, "both tasks")
    assert attempts == [("a", 1), ("b", 1)]


async def test_what_another_worker_rejects_is_a_dead_letter(broker: OnRabbitMq, amqp: Amqp) -> None:
    """Without an exchange for it RabbitMQ would drop it; a redrive gives it all its attempts anew."""
    await send(broker, "a")
    async with amqp.channel() as channel:
        message = await channel.basic_get(queue_name(broker.fleet.fleet, "images"))
        assert message.delivery_tag is not None
        await channel.basic_nack(message.delivery_tag, requeue=False)

    async def written() -> bool:
        return await dead(broker) == 1

    await until(written, "the dead letter")
    (letter,) = await broker.admin.peek("images", dead=True)
    assert (letter.id, letter.reason) == ("a", "moved by the broker: rejected")
    assert await broker.admin.redrive("images", ["a"]) == 1
    assert [task.id for task in await broker.admin.peek("images")] == ["a"]


async def test_tasks_that_wait_for_another_attempt_are_counted_and_purged(broker: OnRabbitMq) -> None:
    """They lie in queues of their own, by their delay; none of them holds up one that is due before."""
    runs: list[str] = []

    @worker(concurrency=2, retry_delay_s=30)
    async def later(task: Task) -> None:
        runs.append(task.id)
        raise ValueError("later")

    @worker(concurrency=2, retry_delay_s=0.05)
    async def soon(task: Task) -> None:
        runs.append(task.id)
        if task.attempt == 1:
            raise ValueError("soon")

    await send(broker, "later")
    async with working(broker, later):
        await until(lambda: runs, "its first attempt")
    await send(broker, "soon")
    async with working(broker, soon):
        await until(lambda: runs == ["later", "soon", "soon"], "the second attempt of the one that is due")

    async def counted() -> bool:
        (images,) = [counts for counts in await broker.admin.list() if counts.name == "images"]
        return (images.waiting, images.in_progress) == (0, 1)

    await until(counted, "the one that waits")
    await asyncio.sleep(SETTLES_S * 2)
    assert await depth(broker) == 1
    assert await broker.admin.purge("images") == 1


async def test_a_broker_that_is_low_on_memory_keeps_no_acknowledgement_back(broker: OnRabbitMq) -> None:
    """It reads nothing from connections that publish: a producer is told why it is not confirmed, and a worker, whose
    acknowledgements have a connection of their own, gets its tasks done meanwhile."""
    done: list[str] = []
    started: list[str] = []
    go_on = asyncio.Event()

    @worker(concurrency=3)
    async def handle(task: Task) -> None:
        started.append(task.id)
        await go_on.wait()
        done.append(task.id)

    async def empty() -> bool:
        return await depth(broker) == 0

    await send(broker, "a", "b", "c")
    async with working(broker, handle):
        await until(lambda: len(started) == 3, "their start")
        limit = "vm_memory_monitor", "set_vm_memory_high_watermark"
        broker.node.call(*limit, "0.00001")
        try:
            with environment(broker.environment("front")), pytest.raises(QueueError, match="low on memory or disk"):
                for _ in range(100):  # the first is still taken
                    await publish("images", "more", timeout_s=2)
            go_on.set()
            await until(lambda: {"a", "b", "c"} <= set(done), "the tasks")
            await until(empty, "the acknowledgements")
        finally:
            broker.node.call(*limit, "0.4")


async def test_a_task_that_outlasts_the_consumer_timeout_is_not_done_twice_by_its_worker(
    broker: OnRabbitMq, caplog: pytest.LogCaptureFixture
) -> None:
    """Before 3.12 no consumer can name its own: the broker closes the channel and delivers the task again. Its worker
    knows it, goes on, and acknowledges the new delivery."""
    runs: list[int] = []
    go_on = asyncio.Event()

    @worker
    async def handle(task: Task) -> None:
        runs.append(task.attempt)
        await go_on.wait()

    async def owed() -> bool:
        return await depth(broker) >= 1  # 2 for a moment: it waits again, and is still known as taken

    async def empty() -> bool:
        return await depth(broker) == 0

    await send(broker, "long")
    async with working(broker, handle):
        await until(lambda: runs, "its start")
        await until(lambda: "delivery acknowledgement on channel" in caplog.text, "the broker to lose its patience")
        await until(lambda: "connected to the broker again" in caplog.text, "the worker to be back")
        await until(owed, "it to be known as owed, which RabbitMQ says a moment late")
        go_on.set()
        await until(empty, "the acknowledgement")
    assert runs == [1]


async def test_an_end_deletes_all_of_the_fleet_and_nothing_else(broker: OnRabbitMq, amqp: Amqp) -> None:
    """Queues, dead letters, what waits, and the exchange."""
    async with amqp.channel() as channel:
        await channel.queue_declare("shoal.ware-house-2.images", durable=True)
    await send(broker, "a")
    await broker.queues.remove()
    async with amqp.channel() as channel:
        await channel.queue_delete("shoal.ware-house-2.images")
    with contextlib.suppress(BrokerError):
        async with amqp.channel() as channel:
            await channel.queue_declare(queue_name(broker.fleet.fleet, "images"), passive=True)
            pytest.fail("the queue is still there")
    await broker.ensure()
    assert await depth(broker) == 0
