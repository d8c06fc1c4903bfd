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
from shoal.control.agent_state import AgentState, Event
from shoal.control.parts import Parts
from shoal.control.problems import Problems
from shoal.core.action import ActionFailure
from shoal.errors import EngineUnavailable
from shoal.spec.model import Kind

WAIT_S = 0.05  # that a pass waits for what it began
TOGETHER_S = 0.1  # of many that end one by one those within this time are taken up by one pass
RETRY_S = 1.0
_AT_ONCE = 16  # agents that are acted upon side by side


@dataclass(frozen=True, slots=True)
class _Acted:
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
        """Why it is not done, where that is the agent's: of what was refused the first; `""`: it is, or is decided
        again, or see `away`."""
        if self.error is not None:
            return "" if self.away else str(self.error) or type(self.error).__name__
        return next((failure.reason for failure in self.failures if failure.reason), "")


class Acting:
    """The actions that are under way, of agents out of `states`. `note` takes the events; `wake` is called when some
    actions have ended."""

    def __init__(
        self,
        parts: Parts,
        states: Mapping[str, AgentState],
        problems: Problems,
        *,
        note: Callable[[Event], None],
        wake: Callable[[], None],
    ) -> None:
        self._parts, self._states, self._problems = parts, states, problems
        self._note, self._wake = note, wake
        self._tasks: dict[str, asyncio.Task[_Acted]] = {}
        self._ended: set[str] = set()  # since the last look
        self._not_asked: dict[str, Exception] = {}  # by agent: why the engine could not be asked
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._busy = 0  # agents whose actions have not ended
        self._to_wake: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> bool:
        """Whether the engine is busy with any."""
        return bool(self._tasks)

    async def carry_out(self, outcomes: Mapping[str, Outcome], tasks: asyncio.TaskGroup) -> None:
        """Begins the actions of each agent, in their order. Returns when they have ended, or a moment has passed."""
        begun: list[asyncio.Task[_Acted]] = []
        for agent, outcome in outcomes.items():
            self._states[agent].acting = bool(outcome.actions)
            if outcome.actions:
                self._tasks[agent] = tasks.create_task(self._act(agent, outcome))
                begun.append(self._tasks[agent])
            else:
                self._not_asked.pop(agent, None)
                self._take_record(self._states[agent], outcome)
        if begun:
            await asyncio.wait(begun, timeout=WAIT_S)

    def take_ended(self, now: float) -> bool:
        """Takes up what has been carried out, and what could not be: that is tried again. Says whether there was
        anything, so that the engine has to be looked at; see `looked`."""
        ended = [agent for agent, task in self._tasks.items() if task.done()]
        for agent in ended:
            self._take(self._tasks.pop(agent).result(), now)
        self._tell_not_asked()
        self._ended.update(ended)
        return bool(ended)

    def looked(self) -> None:
        """The engine was looked at: agents whose actions have ended are not left alone any more."""
        for agent in self._ended:
            self._states[agent].acting = False
        self._ended.clear()

    async def _act(self, agent: str, outcome: Outcome) -> _Acted:
        self._busy += 1
        try:
            async with self._slots:
                self._parts.require_right()
                failures = await self._parts.engine.act(outcome.actions)
        except Exception as error:  # noqa: BLE001 - told, and tried again; the others go on
            return _Acted(agent, outcome, error=error)
        finally:
            self._busy -= 1
            self._wake_for_end()
        return _Acted(agent, outcome, failures)

    def _wake_for_end(self) -> None:
        """A pass for each of a thousand that end one by one would cost more than they do."""
        if self._busy:
            self._to_wake = self._to_wake or asyncio.get_running_loop().call_later(TOGETHER_S, self._wake_now)
        else:
            self._wake_now()

    def _wake_now(self) -> None:
        if self._to_wake is not None:
            self._to_wake.cancel()
            self._to_wake = None
        self._wake()

    def _take(self, acted: _Acted, now: float) -> None:
        """An engine that is away is no agent's failure."""
        state, reason = self._states[acted.agent], acted.reason
        if acted.error is not None:
            self._not_asked[acted.agent] = acted.error
        else:
            self._not_asked.pop(acted.agent, None)
        if reason and reason != state.failure:
            self._note(Event(now, state.name, "refused", reason))
        if not acted.away:
            state.failure = reason
        if acted.error is None and not acted.failures:
            self._take_record(state, acted.outcome)
        else:
            state.settled, state.ensure = False, True
            state.due_at = state.retry_at = now + RETRY_S

    def _take_record(self, state: AgentState, outcome: Outcome) -> None:
        """What holds of a job once the engine took the actions; it may be another kind of agent by now."""
        if outcome.record is not None and (state.spec is None or state.spec.kind is Kind.JOB):
            state.record = outcome.record
            state.manual_runs = tuple(run for run in state.manual_runs if run not in outcome.started_runs)

    def _tell_not_asked(self) -> None:
        """One of the reasons, the same as long as it is there: an engine that is away is before all others."""
        errors = [error for agent, error in self._not_asked.items() if agent in self._states]
        away = [error for error in errors if isinstance(error, EngineUnavailable)]
        if errors:
            self._problems.failed("actions", (away or errors)[0])
        else:
            self._problems.say("actions", None)
