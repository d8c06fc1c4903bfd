"""Who asks for a count or a run is answered once the next controller would know of it, too. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

import pytest

from shoal.control import asked
from shoal.core.action import Action
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord
from shoal.errors import ControllerUnavailable, EngineError, EngineUnavailable, StoreError
from tests.simulation.virtual_time import run_virtually
from tests.unit.control.drive import Drive, driving

WEB = {"command": "serve", "port": 80, "scale": {"min": 1, "max": 9}}
JOB = {"command": "work", "schedule": "0 0 1 1 *"}


async def full(records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> NoReturn:
    """A store's write."""
    raise StoreError("the disk is full")


def with_a_fleet(story: Callable[[Drive, asyncio.TaskGroup], Awaitable[None]]) -> None:
    """A service with a replica, and a job."""

    async def run() -> None:
        async with driving() as drive:
            await drive.up({"web": WEB, "job": JOB})
            await drive.go(5, until=lambda: drive.controller.settled)
            assert drive.tasks is not None
            await story(drive, drive.tasks)

    run_virtually(run())


def test_a_count_is_stored_before_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though other things are told meanwhile, and though the agent already has so many replicas."""

    async def story(drive: Drive, tasks: asyncio.TaskGroup) -> None:
        may, write = asyncio.Event(), drive.store.write

        async def slow(records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> None:
            await may.wait()
            await write(records, decisions)

        monkeypatch.setattr(drive.store, "write", slow)
        pinned = tasks.create_task(asked.pin(drive.controller, "web", 1, None))
        for _ in range(3):
            await drive.go(1)
            drive.controller.publish()
        await drive.go(1)
        assert not pinned.done() and not drive.controller.settled
        may.set()
        await drive.go(1)
        assert pinned.done()
        pin = (await drive.store.read_records())["web"].pin
        assert pin is not None and pin.count == 1

    with_a_fleet(story)


def test_a_count_that_could_not_be_stored_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds, as far as this controller lives."""

    async def story(drive: Drive, tasks: asyncio.TaskGroup) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(drive.store, "write", full)
            pinned = tasks.create_task(_outcome(asked.pin(drive.controller, "web", 3, None)))
            await drive.go(3)
            assert not pinned.done()  # it may come back
            why = await pinned
            assert isinstance(why, StoreError) and "could not be stored" in str(why) and "the disk is full" in str(why)
            assert drive.state("web").record.desired == 3
        await drive.go(3, until=lambda: drive.controller.settled)
        assert (await drive.store.read_records())["web"].pin == drive.state("web").record.pin

    with_a_fleet(story)


def test_a_store_that_is_back_within_seconds_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(drive: Drive, tasks: asyncio.TaskGroup) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(drive.store, "write", full)
            pinned = tasks.create_task(asked.pin(drive.controller, "web", 3, None))
            await drive.go(2)
            assert drive.controller.problems == {"pass": "the disk is full"} and not pinned.done()
        await drive.go(3, until=pinned.done)
        assert (await drive.store.read_records())["web"].pin == drive.state("web").record.pin

    with_a_fleet(story)


def test_who_may_not_act_stores_nothing_and_is_not_settled() -> None:
    """Another controller may act in its place, and would not know of it."""

    async def story(drive: Drive, tasks: asyncio.TaskGroup) -> None:
        drive.has_right = False
        assert not drive.controller.settled
        pinned = tasks.create_task(_outcome(asked.pin(drive.controller, "web", 3, None)))
        await drive.go(3)
        why = await pinned
        assert isinstance(why, StoreError) and "another one may act" in str(why)
        assert len(drive.state("web").observed.replicas) == 1
        assert (await drive.store.read_records())["web"].pin is None
        drive.has_right = True
        await drive.go(5, until=lambda: drive.controller.settled)
        assert len(drive.state("web").observed.replicas) == 3

    with_a_fleet(story)


def test_an_agent_that_leaves_meanwhile_keeps_nobody_waiting() -> None:
    async def story(drive: Drive, tasks: asyncio.TaskGroup) -> None:
        await drive.up({"job": JOB})
        pinned = tasks.create_task(asked.pin(drive.controller, "web", 3, None))
        await drive.go(10, until=lambda: "web" not in drive.controller.states)
        await drive.go(1)
        assert pinned.done()

    with_a_fleet(story)


def test_before_the_fleet_is_known_nothing_can_be_asked() -> None:
    """Of a controller that takes its first look."""

    async def run() -> None:
        async with driving() as drive:
            with pytest.raises(ControllerUnavailable, match="takes up the fleet"):
                drive.controller.pin("web", 1)
            with pytest.raises(ControllerUnavailable, match="takes up the fleet"):
                drive.controller.run_job("job")

    run_virtually(run())


def test_a_run_has_begun_when_it_is_answered() -> None:
    async def story(drive: Drive, tasks: asyncio.TaskGroup) -> None:
        run = tasks.create_task(asked.run_job(drive.controller, "job"))
        await drive.go(3, until=run.done)
        assert drive.state("job").manual_runs == ()
        await drive.go(1)
        assert [each.run_id for each in drive.state("job").observed.runs] == [run.result()]

    with_a_fleet(story)


def test_a_run_that_could_not_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """And begins later, as nobody took it back."""

    async def away(actions: Sequence[Action]) -> NoReturn:
        raise EngineUnavailable("it is away")

    async def story(drive: Drive, tasks: asyncio.TaskGroup) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(drive.engine, "act", away)
            run = tasks.create_task(_outcome(asked.run_job(drive.controller, "job")))
            await drive.go(3)
            assert not run.done()
            why = await run
            assert isinstance(why, EngineError) and "has not begun: it is away" in str(why)
        await drive.go(5, until=lambda: bool(drive.state("job").observed.runs))

    with_a_fleet(story)


async def _outcome(asking: Awaitable[Any]) -> Any:
    try:
        return await asking
    except (StoreError, EngineError) as error:
        return error
