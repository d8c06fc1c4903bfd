"""Drops the contents of secrets that nothing names any more.

Beside the passes: it reads all revisions that one could come back to, which of 1,000 agents takes a second.
"""

from __future__ import annotations

import asyncio

from shoal.control.parts import Parts
from shoal.control.problems import Problems
from shoal.control.store import StoredFleet


class SecretPruning:
    """Once for each generation that is carried out."""

    def __init__(self, parts: Parts, problems: Problems) -> None:
        self._parts, self._problems = parts, problems
        self._pruned_for: StoredFleet | None = None  # whose contents are all that is kept
        self._task: asyncio.Task[None] | None = None

    def begin(self, carried_out: StoredFleet, tasks: asyncio.TaskGroup) -> None:
        """Keeps what this generation names, and what those do that one could come back to. What fails is told, and
        tried again when this is called again."""
        if carried_out is not self._pruned_for and (self._task is None or self._task.done()):
            self._task = tasks.create_task(self._prune(carried_out))

    async def _prune(self, carried_out: StoredFleet) -> None:
        try:
            history = await self._parts.store.read_history()
        except Exception as error:  # noqa: BLE001 - told, and tried again
            self._problems.failed("history", error)
            return
        self._problems.say("history", None)
        named = {record.digest for record in carried_out.secrets.values()}
        self._parts.prune_secrets(frozenset(named | history.digests))
        self._pruned_for = carried_out
