"""An engine in the hands of a controller that may act only while it holds the fleet's lease."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from shoal.core.action import Action, ActionFailure
from shoal.core.observed import Observed
from shoal.engines.protocol import Capabilities, Engine


class Lease(Protocol):
    def require(self) -> None:
        """Raises EngineUnavailable unless this one may act now."""
        ...


class Leased:
    """Implements `Engine`. Looking is everybody's right."""

    def __init__(self, engine: Engine, lease: Lease) -> None:
        self._engine, self._lease = engine, lease

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    async def observe(self) -> Observed:
        return await self._engine.observe()

    def changes(self) -> AsyncIterator[None]:
        return self._engine.changes()

    async def act(self, actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
        """Raises EngineUnavailable without the lease."""
        self._lease.require()
        return await self._engine.act(actions)
