"""The SDK's worker against real brokers, with the same cases on each: every rule was broken once by a queue library."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from queues_broker import Broker, WorkerProcess, dead, depth, environment, running, send, until, working

from shoal.sdk import Reject, Retry, Task, Worker, close, worker


@pytest.fixture
async def broker(new_broker: Callable[..., Broker]) -> AsyncIterator[Broker]:
    async with running(new_broker(ack_wait_s=1.5)) as broker:
        yield broker


@pytest.fixture(autouse=True)
def own_environment() -> Any:
    with environment({}):
        yield


async def test_tasks_are_done_at_once_and_none_waits_for_a_batch(broker: Broker) -> None:
    """A slow task delays no other: 16 tasks, one of them slow, on 4 places; never more than 4 at once."""
    done: dict[str, float] = {}
    running = most = 0
    slow = asyncio.Event()

    @worker(concurrency=4)
    async def handle(task: Task) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if task.data == b"slow":
            await slow.wait()
        await asyncio.sleep(0.01)
        running -= 1
        done[task.id] = time.monotonic()

    await send(broker, "slow", *(str(number) for number in range(15)))
    async with working(broker, handle):
        await until(lambda: len(done) == 15, "the fifteen quick tasks")
        assert "slow" not in done
        slow.set()
        await until(lambda: len(done) == 16, "the slow one")
        await until(lambda: empty(broker), "the acknowledgements")
    assert most == 4


async def test_a_handler_longer_than_ack_wait_runs_once(broker: Broker) -> None:
    """Heartbeats keep the task for as long as it is worked on, coroutine or thread."""
    starts: list[str] = []

    async def patient(task: Task) -> None:
        starts.append(f"async {task.attempt}")
        await asyncio.sleep(2.5)

    def blocking(task: Task) -> None:
        starts.append(f"sync {task.attempt}")
        assert threading.current_thread() is not threading.main_thread()
        time.sleep(2.5)

    for handler in (patient, blocking):
        await send(broker, f"for {handler.__name__}")
    async with asyncio.TaskGroup() as group:
        group.create_task(drain_one(broker, worker(patient)))
        group.create_task(drain_one(broker, worker(blocking)))
    assert sorted(starts) == ["async 1", "sync 1"]


async def drain_one(broker: Broker, handler: Worker) -> None:
    """Works until the queue is empty."""
    async with working(broker, handler):
        await until(lambda: empty(broker), "an empty queue")


async def test_a_poison_task_does_not_spin_and_ends_among_the_dead(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Three attempts with growing delays, each logged with its traceback; then a dead letter that says why."""
    attempts: list[tuple[int, float]] = []

    @worker(retry_delay_s=0.4, retry_delay_max_s=5)
    async def handle(task: Task) -> None:
        attempts.append((task.attempt, time.monotonic()))
        assert task.max_attempts == 3
        raise ValueError("no such\nimage")

    await send(broker, "poison")
    async with working(broker, handle):
        await until(lambda: dead(broker), "the dead letter")
        await asyncio.sleep(0.3)
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert attempts[1][1] - attempts[0][1] >= 0.19
    assert attempts[2][1] - attempts[1][1] >= 0.39
    await until(lambda: empty(broker), "the acknowledgement")
    (letter,) = await broker.admin.peek("images", dead=True)
    assert letter.traceback.startswith("Traceback (most recent call last):\n  File ")
    assert (letter.id, letter.attempts, letter.payload) == ("poison", 3, "poison")
    assert letter.reason == "failed 3 of 3 times: ValueError: no such\\nimage"
    logged = [record for record in caplog.records if record.name == "shoal.sdk" and record.exc_info]
    assert [record.levelname for record in logged] == ["WARNING", "WARNING", "ERROR"]


async def test_reject_retry_and_a_sync_handler_that_exits(broker: Broker) -> None:
    """Reject goes to the dead letters at once, Retry names its delay, and no task ends its worker."""
    attempts: list[str] = []

    @worker(concurrency=3, retry_delay_s=0.05)
    def handle(task: Task) -> None:
        attempts.append(f"{task.id} {task.attempt}")
        match task.id, task.attempt:
            case "reject", _:
                raise Reject("not an image")
            case "retry", 1:
                raise Retry("busy", delay_s=0.1)
            case "exit", 1:
                raise SystemExit(3)
            case _:
                return

    await send(broker, "reject", "retry", "exit")
    async with working(broker, handle):
        await until(lambda: len(attempts) >= 5, "five attempts")
        await until(lambda: dead(broker), "the dead letter")
    assert sorted(attempts) == ["exit 1", "exit 2", "reject 1", "retry 1", "retry 2"]
    (letter,) = await broker.admin.peek("images", dead=True)
    assert (letter.id, letter.reason, letter.attempts) == ("reject", "rejected: not an image", 1)


async def test_a_dead_letter_can_be_redriven_and_done(broker: Broker) -> None:
    """The task comes back under its id with its attempts at zero."""
    broken = True
    done: list[tuple[str, int]] = []

    @worker
    async def handle(task: Task) -> None:
        if broken:
            raise Reject("broken")
        done.append((task.id, task.attempt))

    await send(broker, "order")
    async with working(broker, handle):
        await until(lambda: dead(broker), "the dead letter")
        broken = False
        assert await broker.admin.redrive("images", ["order"]) == 1
        await until(lambda: done, "the redriven task")
    assert done == [("order", 1)]
    assert await dead(broker) == 0


async def test_a_crash_between_dead_letter_and_acknowledgement_loses_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The letter is written first. The task comes once more, goes there without being run, and where the broker drops
    what is written twice, is not there twice; a redrive makes one task of it in any case."""
    from shoal.sdk.jetstream import delivery as on_jetstream
    from shoal.sdk.rabbitmq import answers as on_rabbitmq

    Answers: Any = on_jetstream.Answers if broker.name == "nats" else on_rabbitmq.Answers

    runs: list[int] = []
    crashes: list[str] = []
    acknowledge = Answers.done

    async def crash_once(self: Any, delivery: Any) -> None:
        if crashes or delivery.task.attempt < 3:
            await acknowledge(self, delivery)
            return
        crashes.append(delivery.task.id)
        assert await dead(broker) == 1  # before the acknowledgement
        await self.hand_back(delivery)  # as after its end

    @worker(retry_delay_s=0.05)
    async def handle(task: Task) -> None:
        runs.append(task.attempt)
        raise ValueError("broken")

    letters = 1 if broker.deduplicates else 2

    async def settled() -> bool:
        return bool(crashes) and await dead(broker) == letters and await empty(broker)

    monkeypatch.setattr(Answers, "done", crash_once)
    await send(broker, "order")
    async with working(broker, handle):
        await until(settled, "the second delivery to be acknowledged")
    assert runs == [1, 2, 3]
    assert await broker.admin.redrive("images") == 1
    assert await dead(broker) == 0


async def test_stopping_hands_back_at_once(broker: Broker) -> None:
    """What runs may finish; what could not start is there for others long before `ack_wait`."""
    await broker.queues.ensure({"images": broker.fleet.queues["images"].model_copy(update={"ack_wait_s": 60.0})})
    finish, started = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    @worker
    async def first(task: Task) -> None:
        started.set()
        await finish.wait()
        done.append(f"first {task.id}")

    @worker
    async def second(task: Task) -> None:
        done.append(f"second {task.id}")

    await send(broker, "a", "b", "c")
    async with working(broker, first):
        await started.wait()
        first.stop()
        async with working(broker, second):
            await until(lambda: len(done) == 2, "the rest at the other worker")
        finish.set()
    assert done == ["second b", "second c", "first a"]
    await until(lambda: empty(broker), "the acknowledgements")


async def test_workers_that_are_stopped_again_and_again_cost_no_task(broker: Broker) -> None:
    """Though each was given the tasks, and began none of them; another worker has them look twice before they begin."""
    changes = {"ack_wait_s": 60.0, "max_attempts": 2}
    await broker.queues.ensure({"images": broker.fleet.queues["images"].model_copy(update=changes)})
    finish, started = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    @worker
    async def busy(task: Task) -> None:
        started.set()
        await finish.wait()
        done.append(task.id)

    await send(broker, "held")
    async with working(broker, busy):
        await started.wait()
        await send(broker, "a", "b")
        for _ in range(4):
            next_one = Worker(lambda task: done.append(task.id), concurrency=2)
            async with working(broker, next_one):
                await until(lambda: all_taken(broker), "the tasks to be taken")
        finish.set()
    assert sorted(done) == ["a", "b", "held"] and await dead(broker) == 0


async def all_taken(broker: Broker) -> bool:
    """Whether none waits for a worker."""
    (counts,) = [each for each in await broker.admin.list() if each.name == "images"]
    return not counts.waiting


async def test_what_is_not_finished_within_the_grace_period_is_handed_back(broker: Broker) -> None:
    """Cancelled and delivered to another worker at once, not after `ack_wait`."""
    await broker.queues.ensure({"images": broker.fleet.queues["images"].model_copy(update={"ack_wait_s": 60.0})})
    variables = broker.environment("worker") | {"SHOAL_STOP_GRACE_PERIOD_S": "0.5"}
    for kind, pause in (("async def", "await asyncio.sleep(60)"), ("def", "time.sleep(60)")):
        name = kind.split()[0]
        slow = WorkerProcess(
            broker.directory,
            name,
            variables,
            f"""
            from shoal.sdk import worker
            @worker
            {kind} handle(task):
                note(task.id)
                {pause}
            handle.run()
            note("returned")
            """,
        )
        try:
            await send(broker, name)
            await until(slow.seen, "the start of the task")
            slow.stop(signal.SIGTERM)
            assert await slow.ended() == 0, slow.log.read_text()
            assert slow.seen() == [name, "returned"]
        finally:
            slow.stop()
        attempts: list[int] = []
        await drain_one(broker, worker(collect(attempts)))
        assert attempts == [2]


def collect(attempts: list[int]) -> Callable[[Task], None]:
    return lambda task: attempts.append(task.attempt)


CODE = """
from shoal.sdk import worker
@worker
async def handle(task):
    note(f"start {task.id} {task.attempt}")
    await asyncio.sleep(0.5)
    note(f"end {task.id} {task.attempt}")
handle.run()
"""


async def test_a_killed_worker_s_task_is_done_by_another(broker: Broker) -> None:
    """kill -9 in the middle: redelivered after `ack_wait`, and done."""
    first = WorkerProcess(broker.directory, "first", broker.environment("worker"), CODE.replace("0.5", "60"))
    second = None
    try:
        await send(broker, "a")
        await until(first.seen, "the start")
        await asyncio.sleep(0.6)  # a heartbeat or two
        first.stop(signal.SIGKILL)
        killed_at = time.time()
        second = WorkerProcess(broker.directory, "second", broker.environment("worker"), CODE)
        await until(lambda: len(second.seen()) == 2, "the other worker's end")
        assert second.seen() == ["start a 2", "end a 2"]
        assert float(second.lines()[0].split()[0]) - killed_at < 15
        await until(lambda: empty(broker), "the acknowledgement")
        second.stop(signal.SIGTERM)
        assert await second.ended() == 0, second.log.read_text()
    finally:
        first.stop()
        if second is not None:
            second.stop()


async def test_a_frozen_worker_loses_its_task(broker: Broker) -> None:
    """One that neither works nor ends, and sends no heartbeat: another gets the task."""
    first = WorkerProcess(broker.directory, "frozen", broker.environment("worker"), CODE.replace("0.5", "60"))
    attempts: list[int] = []
    try:
        await send(broker, "a")
        await until(first.seen, "the start")
        first.stop(signal.SIGSTOP)
        async with working(broker, worker(collect(attempts))):
            await until(lambda: attempts == [2], "the other worker")
            await until(lambda: empty(broker), "the task to be done")
    finally:
        first.stop()
        await first.ended()
    assert attempts == [2]


async def empty(broker: Broker) -> bool:
    return await depth(broker) == 0


async def test_workers_outlive_the_broker(broker: Broker) -> None:
    """kill -9 of the server again and again: every task is done, and by one worker none twice."""
    runs: dict[str, int] = {}

    @worker(concurrency=8)
    async def handle(task: Task) -> None:
        await asyncio.sleep(0.005)
        runs[task.id] = runs.get(task.id, 0) + 1

    await send(broker, *range(200))
    async with working(broker, handle):
        for enough in (50, 120) if broker.name == "nats" else (120,):  # the other takes long to start
            await until(lambda enough=enough: len(runs) >= enough, f"{enough} tasks")
            broker.kill()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(broker.start)
        await until(lambda: len(runs) == 200, "all tasks")
        await until(lambda: reads_empty(broker), "the acknowledgements")
    assert {id: count for id, count in runs.items() if count > 1} == {}


async def reads_empty(broker: Broker) -> bool:
    from shoal.errors import BrokerError

    try:
        return await empty(broker)
    except BrokerError:
        return False


async def test_a_worker_waits_for_its_queue(new_broker: Callable[..., Broker]) -> None:
    """Started first, it goes to work once the broker is there, and the queue."""
    broker = new_broker()
    done: list[str] = []

    @worker
    async def handle(task: Task) -> None:
        done.append(task.id)

    try:
        if broker.name == "rabbitmq":
            await asyncio.to_thread(broker.start)
        async with working(broker, handle):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(broker.start)
            await asyncio.sleep(0.7)
            await broker.ensure()
            await send(broker, "a")
            await until(lambda: done and reads_empty(broker), "the task and its acknowledgement")
        assert done == ["a"]
    finally:
        await close()
        await broker.close()
