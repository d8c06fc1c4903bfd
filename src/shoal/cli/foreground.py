"""`shoal up` in the foreground: a view of the fleet until Ctrl-C, which drains everything; the second one hurries.

The controller is a process of its own all the same. Should this one be killed, agents, gateway and controller go on as
if `-d` had been given.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from shoal.cli.interrupts import Interrupts
from shoal.cli.output import say
from shoal.cli.progress import Progress
from shoal.cli.secret_values import forget_secrets
from shoal.cli.settling import Settling, Verdict
from shoal.cli.status_text import describe_trouble
from shoal.cli.stored_fleet import read_stored
from shoal.cli.up import describe_failure, describe_settled, describe_superseded
from shoal.cli.watching import watch
from shoal.errors import ControllerUnavailable, ShoalError
from shoal.units import format_duration

if TYPE_CHECKING:
    from shoal.api.views import StatusView
    from shoal.cli.place import Place, Started

_HURRY_S = 0.2


class Foreground:
    """One stay in the foreground. With `started` None somebody else's controller is looked at, and not ended."""

    def __init__(
        self,
        place: Place,
        settling: Settling,
        started: Started | None,
        timeout_s: float,
        interrupts: Interrupts,
    ) -> None:
        self._place = place
        self._client = place.client()
        self._settling = settling
        self._started = started
        self._timeout_s = timeout_s
        self._began = time.monotonic()
        self._told: Verdict | None = None
        self._interrupts = interrupts

    async def stay(self) -> int:
        """Until the fleet is down or the view is left; gives the exit code."""
        with Progress(self._interrupts.lost_reader) as progress:
            async with asyncio.TaskGroup() as tasks:
                others = [tasks.create_task(self._tell_events(progress))]
                if self._started is not None:
                    others += [
                        tasks.create_task(self._drain(progress)),
                        tasks.create_task(self._hurry(self._started, progress)),
                    ]
                await self._show(progress)
                for task in others:
                    task.cancel()
        return await self._ended()

    async def _show(self, progress: Progress) -> None:
        """Show the fleet until the controller ends, or until Ctrl-C where that only ends the view."""
        leaving = asyncio.Event() if self._started is not None else self._interrupts.first
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(progress))
            left = tasks.create_task(leaving.wait())
            await asyncio.wait([watching, left], return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()
            left.cancel()

    async def _watch(self, progress: Progress) -> None:
        try:
            async with aclosing(watch(self._place)) as views:
                async for view in views:
                    progress.show(view)
                    if not self._interrupts.wished:
                        await self._judge(view, progress)
        except ControllerUnavailable:
            return  # `_ended` finds out why

    async def _judge(self, view: StatusView, progress: Progress) -> None:
        """Tell once that all is settled, or why it is not. The view goes on, unless there is nothing to be seen."""
        now = time.monotonic()
        verdict = self._settling.judge(view, now)
        if verdict is Verdict.SUPERSEDED:
            stored = await read_stored(self._place)
            if self._told is None:
                progress.tell(f"{describe_superseded(self._settling, stored)}. {self._what_ctrl_c_does()}")
                self._told = Verdict.FAILED
            self._settling.generation = view.generation  # what runs is what is shown
        elif verdict is Verdict.SETTLED:
            if self._told is not Verdict.SETTLED:
                progress.tell(f"{describe_settled(view)}. {self._what_ctrl_c_does()}")
            self._told = verdict
        elif self._told is None and (verdict is Verdict.FAILED or now - self._began > self._timeout_s):
            self._told = Verdict.FAILED
            late = "" if verdict is Verdict.FAILED else f"not settled after {format_duration(self._timeout_s)}:\n"
            if self._started is not None and not view.observed_generation and not view.agents:
                progress.tell(f"{late}{describe_trouble(view, ())}")
                self._interrupts.first.set()
                return
            progress.tell(f"{late}{describe_failure(self._settling, view)} {self._what_ctrl_c_does()}")

    def _what_ctrl_c_does(self) -> str:
        if self._started is None:
            return "Ctrl-C ends this view; the fleet goes on."
        return "Ctrl-C drains and stops everything."

    async def _tell_events(self, progress: Progress) -> None:
        try:
            async with aclosing(self._client.events(time.time(), follow=True)) as events:
                async for event in events:
                    progress.event(event)
        except ControllerUnavailable:
            return

    async def _drain(self, progress: Progress) -> None:
        await self._interrupts.first.wait()
        progress.tell("Draining: requests and tasks in progress may finish. Ctrl-C again to hurry.")
        try:
            await self._client.down()
        except ControllerUnavailable:
            return  # it ended while it answered

    async def _hurry(self, started: Started, progress: Progress) -> None:
        await self._interrupts.second.wait()
        progress.tell("Hurrying: what is still stopping is killed.")
        while True:
            started.hurry()
            await asyncio.sleep(_HURRY_S)

    async def _ended(self) -> int:
        settled = self._interrupts.exit_code(0 if self._told is Verdict.SETTLED else 1)
        if self._started is None:
            if self._interrupts.wished:
                say("The fleet goes on; `shoal down` stops it.")
                return settled
            say("The fleet's controller has ended.")
            return 0
        code = await self._started.ended()
        if self._interrupts.wished and code == 0:
            await forget_secrets(self._place)
            await self._place.tidy(data=False)
            say("Everything is stopped.")
            return settled
        if code == 0:
            say("The fleet's controller was ended by somebody else; `shoal up` takes over whatever still runs.")
            return 0
        how = "does not end" if code is None else f"ended with exit code {code}"
        raise ShoalError(
            f"the controller {how}; its last words:\n{self._started.last_words()}\n"
            "Agents and gateway may go on: `shoal up` takes them over, `shoal down` stops them"
        )
