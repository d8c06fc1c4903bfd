"""What wakes the loop: the engine's changes, the gateways' statistics, and what has to be asked for in a rhythm.

None of it decides anything: it puts what it learnt into the agents' states and says whom it concerns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from shoal.control.agent_state import Event
from shoal.errors import EngineError

if TYPE_CHECKING:
    from shoal.control.controller import Controller

PLATFORM_INTERVAL_S = 1.0
QUEUES_INTERVAL_S = 0.25
BROKERS_INTERVAL_S = 1.0
USAGE_INTERVAL_S = 1.0
REOPEN_S = 1.0
CANCEL_AGAIN_S = 0.5


class Watching:
    """The watchers of one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def start(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Starts all of them; they go on until they are cancelled."""
        return [
            tasks.create_task(self._watch_engine()),
            tasks.create_task(self._watch_gateways()),
            tasks.create_task(self._every(PLATFORM_INTERVAL_S, self._keep_platform)),
            tasks.create_task(self._every(QUEUES_INTERVAL_S, self.read_queues)),
            tasks.create_task(self._every(BROKERS_INTERVAL_S, self.make_queues)),
            tasks.create_task(self._every(USAGE_INTERVAL_S, self._read_usage)),
        ]

    async def _watch_engine(self) -> None:
        while True:  # a stream of changes that ends or breaks is opened again, and what it missed is looked at
            try:
                async for _ in self._controller.parts.engine.changes():
                    self._controller.look()
                    self._controller.problems.say("changes", None)
            except EngineError as error:
                self._controller.problems.say("changes", str(error))
            await asyncio.sleep(REOPEN_S)
            self._controller.look()

    async def _watch_gateways(self) -> None:
        while True:
            await self._controller.parts.gateways.changed()
            refusals = self._controller.parts.gateways.refusals.items()
            words = "; ".join(f"gateway {name} refuses what it was sent: {why}" for name, why in refusals)
            self._controller.problems.say("gateways", words or None)
            self._note_ends()
            self._controller.publish()
            self._controller.wake()

    def _note_ends(self) -> None:
        for gateway, end in self._controller.parts.gateways.take_ends():
            event = Event(end.at, None, "crashed", f"gateway {gateway}: Envoy ended ({end.how}), started again")
            if event not in self._controller.events:  # told to the controller before, or before the line broke
                self._controller.note(event)

    async def _every(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.current_task()
        while task is not None and not task.cancelling():  # see `end_tasks`
            await asyncio.sleep(interval_s)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - this task must not be the end of all others
                self._controller.problems.failed(work.__name__.strip("_"), error)
            else:
                self._controller.problems.say(work.__name__.strip("_"), None)

    async def _keep_platform(self) -> None:
        fleet = self._controller.carried_out
        if fleet is not None:
            wiring = await self._controller.parts.platform.ensure(fleet)
            wired = self._controller.wired
            if wired is not None and wiring != wired.wiring:
                self._controller.apply()

    async def read_queues(self) -> None:
        """Reads the depths now. Public for what drives the loop by itself."""
        depths = await self._controller.queues.read()
        for name, state in self._controller.states.items():
            depth = depths.readings.get(state.spec.queue) if state.spec is not None and state.spec.queue else None
            if depth is not None:
                known = state.signals.queue_depth  # None also while the last reading was too old
                state.depth = depth
                if known is None or known.value != depth.value:
                    self._controller.touch(name)
        if depths.missing is not None:
            raise depths.missing

    async def make_queues(self) -> None:
        """Makes those whose broker was not there when the fleet was taken up. Public for what drives the loop by
        itself."""
        if self._controller.carried_out is not None and self._controller.queues.behind:
            await self._controller.queues.catch_up()
            self._controller.publish()

    async def _read_usage(self) -> None:
        usage = await self._controller.parts.inspector.usage()
        for name, state in self._controller.states.items():
            state.usage = {r.id: usage[r.id] for r in state.observed.replicas if r.id in usage}
            target = state.spec.scale.target if state.spec is not None else None
            if target is not None and (target.cpu is not None or target.memory is not None):
                self._controller.touch(name)


async def end_tasks(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancels them until all have ended. Once is not enough: before Python 3.12, `asyncio.wait_for`, which libraries
    call, drops a cancellation that comes in the same moment as what it waited for."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
