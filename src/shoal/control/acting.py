"""Carries out what passes decide, each agent beside the others, so that an engine which takes its time with one of them
keeps no other from being scaled.

A pass waits a moment for what it had done. What takes longer goes on, and its agent is left alone until a pass has
taken up how it ended, and looked at the engine after that: nothing is decided on a look from before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shoal.control.agent_pass import Outcome
from shoal.core.action import ActionFailure
from shoal.engines.protocol import Engine
from shoal.errors import EngineUnavailable

WAIT_S = 0.2  # that a pass waits for what it began
_AT_ONCE = 16  # agents that are acted upon side by side


@dataclass(frozen=True, slots=True)
class Acted:
    """How it ended for one agent: what the engine refused, or why it could not be asked."""

    agent: str
    outcome: Outcome
    failures: Sequence[ActionFailure] = ()
    error: Exception | None = None

    @property
    def away(self) -> bool:
        """Whether the engine could not be reached."""
        return isinstance(self.error, EngineUnavailable)

    @property
    def reason(self) -> str:
        """Why it is not done, where that is the agent's: of what was refused the first; `""`: it is, or see `away`."""
        if self.error is not None:
            return "" if self.away else str(self.error) or type(self.error).__name__
        return next((failure.reason for failure in self.failures), "")


class Acting:
    """The actions that are under way; `wake` is called when some have ended."""

    def __init__(self, engine: Engine, wake: Callable[[], None]) -> None:
        self._engine, self._wake = engine, wake
        self._tasks: dict[str, asyncio.Task[Acted]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def __len__(self) -> int:
        """Of how many agents."""
        return len(self._tasks)

    async def carry_out(self, outcomes: Mapping[str, Outcome], tasks: asyncio.TaskGroup) -> None:
        """Begins the actions of each agent, in their order. Returns when they have ended, or a moment has passed."""
        work = {agent: outcome for agent, outcome in outcomes.items() if outcome.actions}
        begun = {agent: tasks.create_task(self._act(agent, outcome)) for agent, outcome in work.items()}
        self._tasks |= begun
        if begun:
            await asyncio.wait(begun.values(), timeout=WAIT_S)

    def take_ended(self) -> list[Acted]:
        """What has ended since the last call."""
        ended = [agent for agent, task in self._tasks.items() if task.done()]
        return [self._tasks.pop(agent).result() for agent in ended]

    async def _act(self, agent: str, outcome: Outcome) -> Acted:
        try:
            async with self._slots:
                failures = await self._engine.act(outcome.actions)
        except Exception as error:  # noqa: BLE001 - told, and tried again; the others go on
            return Acted(agent, outcome, error=error)
        finally:
            self._wake()
        return Acted(agent, outcome, failures)
