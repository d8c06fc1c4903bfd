"""Writes what passes decided, one write at a time, so that a store which takes its time keeps nobody from being scaled.

A pass waits a moment for its write. What changes while a longer one is under way is in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from shoal.control.acting import WAIT_S
from shoal.control.store import Store
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord

Records = Mapping[str, AgentRecord | None]


class Saving:
    """The write that is under way; `wake` is called when it has ended."""

    def __init__(self, store: Store, wake: Callable[[], None]) -> None:
        self._store, self._wake = store, wake
        self._task: asyncio.Task[Exception | None] | None = None
        self._records: Records = {}
        self._decisions: list[Decision] = []  # that are not stored yet
        self._under_way = 0  # how many of them, the first ones

    @property
    def busy(self) -> bool:
        """Whether there is one that nobody took up yet."""
        return self._task is not None

    def add(self, decision: Decision) -> None:
        """To be stored with the next write."""
        self._decisions.append(decision)

    async def write(self, records: Records, tasks: asyncio.TaskGroup) -> None:
        """Begins to write them, and the decisions. Returns when that has ended, or a moment has passed."""
        if not records and not self._decisions:
            return
        self._records, self._under_way = records, len(self._decisions)
        self._task = tasks.create_task(self._write(records, tuple(self._decisions)))
        await asyncio.wait((self._task,), timeout=WAIT_S)

    def take_ended(self) -> Records:
        """What was stored since the last call. Raises what the store did: then it is to be written again."""
        if self._task is None or not self._task.done():
            return {}
        task, self._task = self._task, None
        if (error := task.result()) is not None:
            raise error
        del self._decisions[: self._under_way]
        return self._records

    async def _write(self, records: Records, decisions: Sequence[Decision]) -> Exception | None:
        try:
            await self._store.write(records, decisions)
        except Exception as error:  # noqa: BLE001 - raised where it is taken up
            return error
        finally:
            self._wake()
        return None
