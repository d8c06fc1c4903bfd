"""What the agent knows of its containers' health, and who waits to hear of a change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class State:
    """One container's. `ready_at` and `ended_at` are epoch seconds, the former also of one that was ready and is not
    for now; `reason`: why it isn't ready, or was ended."""

    container: str
    task: str
    ready: bool
    ready_at: float | None = None
    ended_at: float | None = None
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class States:
    """A table that can be followed. Of those that were ended, the reason is kept for a while."""

    def __init__(self, keep_s: float = 600.0) -> None:
        self._keep_s = keep_s
        self._states: dict[str, State] = {}
        self._followers: set[asyncio.Event] = set()

    def put(self, state: State) -> None:
        """Tells it to everybody, if it is new."""
        if self._states.get(state.container) != state:
            self._states[state.container] = state
            self._tell()

    def get(self, container: str) -> State | None:
        return self._states.get(container)

    def keep_only(self, running: frozenset[str], now: float) -> None:
        """Forgets who is gone."""
        kept = {
            key: state
            for key, state in self._states.items()
            if key in running or (state.ended_at is not None and now - state.ended_at < self._keep_s)
        }
        if len(kept) != len(self._states):
            self._states = kept
            self._tell()

    def all(self) -> list[State]:
        return list(self._states.values())

    async def follow(self, heartbeat_s: float) -> AsyncGenerator[list[State]]:
        """All of it: now, at each change, and again after `heartbeat_s` without one."""
        changed = asyncio.Event()
        self._followers.add(changed)
        try:
            while True:
                changed.clear()
                yield self.all()
                try:
                    async with asyncio.timeout(heartbeat_s):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            self._followers.discard(changed)

    def _tell(self) -> None:
        for changed in self._followers:
            changed.set()
