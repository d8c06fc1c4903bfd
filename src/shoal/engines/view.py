"""What an engine that keeps an object for each agent shows of them: made anew only where something changed, so that a
thousand quiet agents cost nothing, with the same object again for each of those.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Protocol, TypeVar

from shoal.core.observed import AgentObserved


class Shown(Protocol):
    """One agent in an engine. `gone`: nothing of it is left to be shown."""

    @property
    def view(self) -> AgentObserved: ...

    @property
    def gone(self) -> bool: ...


Agent = TypeVar("Agent", bound=Shown)


class View:
    """Of all agents; whoever changes one says so by `touch`."""

    def __init__(self) -> None:
        self._dirty: set[str] = set()
        self._shown: Mapping[str, AgentObserved] = {}
        self._version = 0
        self._changed = asyncio.Event()

    def touch(self, agent: str) -> None:
        """It is another than it was."""
        self._dirty.add(agent)
        self.wake()

    def wake(self) -> None:
        """Something happened that is no change of an agent's view."""
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def of(self, agents: dict[str, Agent]) -> Mapping[str, AgentObserved]:
        """As they are now; those that are gone leave `agents`."""
        if self._dirty:
            shown = dict(self._shown)
            for name in self._dirty:
                agent = agents.get(name)
                if agent is None or agent.gone:
                    agents.pop(name, None)
                    shown.pop(name, None)
                else:
                    shown[name] = agent.view
            self._dirty.clear()
            self._shown = shown
        return self._shown

    def changes(self) -> AsyncIterator[None]:
        """Yields after whatever happened since the call."""
        return self._changes_since(self._version)

    async def _changes_since(self, seen: int) -> AsyncIterator[None]:
        while True:
            while seen == self._version:
                await self._changed.wait()
            seen = self._version
            yield
