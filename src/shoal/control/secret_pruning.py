"""Drops the contents of secrets that nothing names any more.

Beside the passes: it reads all revisions that one could come back to, which of 1,000 agents takes a second, and in a
cluster each content is a call of its own.
"""

from __future__ import annotations

import asyncio

from shoal.control.acting import RETRY_S
from shoal.control.parts import Parts
from shoal.control.problems import Problems
from shoal.control.store import StoredFleet
from shoal.errors import EngineUnavailable


class SecretPruning:
    """Once for each generation that is carried out."""

    def __init__(self, parts: Parts, problems: Problems) -> None:
        self._parts, self._problems = parts, problems
        self._pruned_for: StoredFleet | None = None  # whose contents are all that is kept
        self._failed_for: StoredFleet | None = None
        self._failed_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def begin(self, stored: StoredFleet, tasks: asyncio.TaskGroup, *, settled: bool) -> None:
        """Keeps what this generation, once it is `settled`, names, and what those do that one could come back to. What
        fails is told, and tried again when this is called again, settled or not, until another generation is stored."""
        if stored is self._pruned_for or (self._task is not None and not self._task.done()):
            return
        if self._failed_for is not None and self._failed_for is not stored:
            self._failed_for = None
            self._is_over("history", "pruning")
        waited_s = abs(self._parts.clock() - self._failed_at)
        if settled if self._failed_for is None else waited_s >= RETRY_S:
            self._task = tasks.create_task(self._prune(stored))

    async def _prune(self, stored: StoredFleet) -> None:
        where = "history"
        try:
            history = await self._parts.store.read_history()
            self._is_over(where)
            where = "pruning"
            named = {record.digest for record in stored.secrets.values()}
            await self._parts.prune_secrets(frozenset(named | history.digests))
        except Exception as error:  # noqa: BLE001 - told, and tried again; it must not be the end of all others
            self._failed_for, self._failed_at = stored, self._parts.clock()
            if isinstance(error, EngineUnavailable):
                self._problems.say(where, str(error))  # whether it is away now too, each look tells
            else:
                self._problems.failed(where, error)
            return
        self._pruned_for, self._failed_for = stored, None
        self._is_over(where)

    def _is_over(self, *places: str) -> None:
        for place in places:
            self._problems.say(place, None)
