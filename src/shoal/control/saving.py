"""Writes what passes decided, one write at a time, so that a store which takes its time keeps nobody from being scaled.

A pass waits a moment for its write. What changes while a longer one is under way is in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from shoal.control.acting import WAIT_S
from shoal.control.agent_state import AgentState
from shoal.control.parts import Parts
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord

Records = Mapping[str, AgentRecord | None]


class Saving:
    """The write that is under way, of what is new in `states`; `wake` is called when it has ended."""

    def __init__(self, parts: Parts, states: Mapping[str, AgentState], wake: Callable[[], None]) -> None:
        self._parts, self._states, self._wake = parts, states, wake
        self._task: asyncio.Task[Exception | None] | None = None
        self._records: Records = {}
        self._decisions: list[Decision] = []  # that are not stored yet
        self._under_way = 0  # how many of them, the first ones
        self._wanted = False  # something came while a write was under way, or somebody asked for it

    @property
    def wanted(self) -> bool:
        """Whether a write is to begin, once the one under way has ended."""
        return self._wanted

    @property
    def at_rest(self) -> bool:
        """Whether nothing is being written, nor waits for it."""
        return self._task is None and not self._wanted

    def want(self) -> None:
        """Something is to be written that no decision tells of."""
        self._wanted = True

    def add(self, decision: Decision) -> None:
        """To be stored with the next write."""
        self._decisions.append(decision)

    async def save(self, tasks: asyncio.TaskGroup) -> None:
        """Begins to write what is new, once no other write is under way. Returns when that has ended, or a moment has
        passed."""
        self._wanted = self._task is not None
        if self._wanted:
            return
        self._records = self._changed()
        if self._records or self._decisions:
            self._under_way = len(self._decisions)
            self._task = tasks.create_task(self._write(self._records, tuple(self._decisions)))
            await asyncio.wait((self._task,), timeout=WAIT_S)

    def take_ended(self) -> Records:
        """Takes up what was stored since the last call. Gives the agents that are over now, and what is kept of them.
        Raises what the store did: then it is to be written again."""
        if self._task is None or not self._task.done():
            return {}
        task, self._task = self._task, None
        if (error := task.result()) is not None:
            raise error
        del self._decisions[: self._under_way]
        for name, record in self._records.items():
            self._states[name].saved = record
        ended = {name: record for name, record in self._records.items() if self._states[name].over}
        return {name: record for name, record in ended.items() if record == self._states[name].kept_at_end}

    def _changed(self) -> Records:
        changed: dict[str, AgentRecord | None] = {}
        for name, state in self._states.items():
            if state.over:
                changed[name] = state.kept_at_end
            elif state.spec is not None and state.record is not state.saved:
                changed[name] = state.record
        return changed

    async def _write(self, records: Records, decisions: Sequence[Decision]) -> Exception | None:
        try:
            self._parts.require_right()
            await self._parts.store.write(records, decisions)
        except Exception as error:  # noqa: BLE001 - raised where it is taken up
            return error
        finally:
            self._wake()
        return None
