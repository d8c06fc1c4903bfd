"""The ports of one controller, with what the world does to their calls: they take time, fail, lie, and end its life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shoal.control.store import StoredFleet
from shoal.core.action import Action, ActionFailure
from shoal.core.decision import Decision
from shoal.core.observed import Observed
from shoal.core.record import AgentRecord
from shoal.core.signals import Reading, Usage
from shoal.core.wiring import Wiring
from shoal.engines.protocol import Capabilities
from shoal.errors import EngineError, EngineUnavailable, StoreError
from shoal.spec.model import Fleet, Queue

if TYPE_CHECKING:
    from tests.simulation.world import Life, World


class SimEngine:
    """The memory engine, seen through the faults of now. What it tells is never older than what it last did for this
    controller: that much the port promises."""

    def __init__(self, world: World, life: Life) -> None:
        self._world, self._life = world, life
        self._acted_at = 0.0

    @property
    def capabilities(self) -> Capabilities:
        return self._world.engine.capabilities

    async def observe(self) -> Observed:
        world = self._world
        await world.call(self._life, "observe")
        if world.lasting("away"):
            raise EngineUnavailable("the engine is away")
        agents = world.seen(not_before=self._acted_at)
        complete = not world.lasting("incomplete")
        if not complete:
            agents = {name: agent for name, agent in agents.items() if world.chance.random() < 0.7}
        await world.call(self._life, "observed")
        return Observed(world.wall(), agents, complete=complete)

    async def changes(self) -> AsyncGenerator[None]:
        world = self._world
        async for _ in world.engine.changes():
            if world.lasting("deaf"):
                if world.chance.random() < 0.02:
                    raise EngineError("the stream of changes broke")
                continue
            yield

    async def act(self, actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
        world = self._world
        await world.call(self._life, "act")
        if world.lasting("away"):
            raise EngineUnavailable("the engine is away")
        failures: list[ActionFailure] = []
        for index, action in enumerate(actions):
            if world.lasting("refuse") and world.chance.random() < 0.5:
                failures.append(ActionFailure(action, "no room"))
                continue
            if world.lasting("fail_before_effect") and world.chance.random() < 0.3:
                raise EngineUnavailable(f"the line broke before action {index}")
            failures += await world.act(self._life, action)
            if world.lasting("fail_after_effect") and world.chance.random() < 0.3:
                if world.chance.random() < 0.5:
                    raise EngineUnavailable(f"the line broke after action {index}")
                failures.append(ActionFailure(action, "no answer"))
            if world.doomed(self._life):
                await asyncio.sleep(3600)
        self._acted_at = world.loop.time()
        await world.call(self._life, "acted")
        return tuple(failures)

    def logs(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def exec(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def usage(self) -> Mapping[str, Usage]:
        return {}


class SimStore:
    """The memory store, which fails before or after what it was asked for."""

    def __init__(self, world: World, life: Life) -> None:
        self._world, self._life = world, life
        self._store = world.store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read_fleet(self) -> StoredFleet | None:
        await self._world.call(self._life, "read_fleet")
        self._fail()
        return await self._store.read_fleet()

    async def read_records(self) -> Mapping[str, AgentRecord]:
        await self._world.call(self._life, "read_records")
        self._fail()
        return await self._store.read_records()

    async def write(self, records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> None:
        await self._world.call(self._life, "write")
        self._fail()
        await self._store.write(records, decisions)
        self._world.stored(records)
        self._fail()
        await self._world.call(self._life, "wrote")

    def _fail(self) -> None:
        if self._world.lasting("store_fails") and self._world.chance.random() < 0.4:
            raise StoreError("the disk is full")


class SimPlatform:
    """The memory platform, which is away at times."""

    def __init__(self, world: World, life: Life) -> None:
        self._world, self._life = world, life

    async def ensure(self, fleet: Fleet) -> Wiring:
        await self._world.call(self._life, "ensure")
        if self._world.lasting("platform_fails"):
            raise EngineError("the broker does not start")
        return await self._world.platform.ensure(fleet)

    async def remove(self, *, data: bool) -> None:
        raise AssertionError("nobody took this fleet down")


class SimQueues:
    """A broker of values."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ensure(self, queues: Mapping[str, Queue]) -> None:
        return

    async def read(self) -> Mapping[str, Reading]:
        world = self._world
        return {name: Reading(float(depth), world.wall()) for name, depth in world.depths.items()}

    async def remove(self) -> None:
        return

    async def close(self) -> None:
        return
