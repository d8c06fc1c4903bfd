"""A controller that is to end does end, whatever happens in the same moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from shoal.control.watching import QUEUES_INTERVAL_S, Watching, end_tasks
from shoal.core.signals import Reading
from shoal.core.wiring import Wiring
from shoal.proxy.wire import EnvoyEnd
from shoal.spec.model import Fleet
from tests.simulation.virtual_time import run_virtually
from tests.unit.control.drive import Drive, Queues, driving

WEB = {"command": "x", "port": 8000}


async def test_a_down_while_the_fleet_is_taken_up_is_no_new_start() -> None:
    """The broker of a controller that has just started takes its time; what was read before is not in force after."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        ensure, came = drive.platform.ensure, asyncio.Event()

        async def slowly(fleet: Fleet) -> Wiring:
            if not came.is_set():
                came.set()
                await drive.controller.shut_down(data=False)
            return await ensure(fleet)

        drive.platform.ensure = slowly  # pyright: ignore[reportAttributeAccessIssue]
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        async with asyncio.TaskGroup() as tasks:
            drive.controller.tasks = tasks
            waiting = tasks.create_task(drive.controller.wait_stopped())
            await drive.go(5, until=lambda: came.is_set() and not drive.controller.states)
            assert not waiting.done()
            drive.controller.stopped.set()


class _Deaf(Queues):
    """A broker whose client drops the first cancellation, as `asyncio.wait_for` can before Python 3.12."""

    reads = 0

    async def read(self) -> Mapping[str, Reading]:
        self.reads += 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        return {}


def test_what_reads_in_a_rhythm_ends_though_a_library_drops_the_cancellation() -> None:
    """Otherwise `down`, or a SIGTERM, would wait for ever."""

    async def cancelled_once() -> int:
        drive = Drive()
        deaf = drive.queues = _Deaf(lambda: drive.now)
        await drive.controller.queues.take(Fleet(fleet="f", agents={}), "nats://h", {})
        async with asyncio.TaskGroup() as tasks:
            background = Watching(drive.controller).start(tasks)
            await asyncio.sleep(QUEUES_INTERVAL_S * 2)
            for task in background:
                task.cancel()
        return deaf.reads

    assert run_virtually(cancelled_once()) == 1


def test_tasks_are_cancelled_until_they_end() -> None:
    """One that drops two cancellations ends by the third."""

    async def deaf() -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def ended() -> bool:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(deaf())
            await asyncio.sleep(1)
            await end_tasks([task])
        return task.cancelled()

    assert run_virtually(ended())


def test_an_envoy_that_ended_is_an_event_once() -> None:
    """With the time at which it ended, though the gateway tells it to each controller that comes."""

    async def told() -> tuple[list[str], list[float]]:
        drive = Drive()
        async with asyncio.TaskGroup() as tasks:
            background = Watching(drive.controller).start(tasks)
            for _ in range(2):
                drive.gateways.end("g1", EnvoyEnd(7.0, "signal 9"))
                await asyncio.sleep(1)
            await end_tasks(background)
        return drive.said("crashed"), [event.at for event in drive.controller.events]

    assert run_virtually(told()) == (["gateway g1: Envoy ended (signal 9), started again"], [7.0])
