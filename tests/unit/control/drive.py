"""Drives a controller on values alone: time passes when the test says so, and never by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from shoal.control import gateway_feed
from shoal.control.agent_state import AgentState
from shoal.control.controller import Controller
from shoal.control.memory_store import MemoryStore
from shoal.control.parts import Parts
from shoal.core.routing import AgentRoute, Traffic
from shoal.core.signals import Reading
from shoal.engines.memory.behaviour import Behaviour
from shoal.engines.memory.engine import MemoryEngine
from shoal.engines.memory.platform import MemoryPlatform
from shoal.errors import EngineUnavailable
from shoal.proxy.memory import MemoryGateways
from shoal.spec.model import Fleet, Queue

START = 1_700_000_000.0
STEP_S = 0.1


class Queues:
    """A broker of values."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.away = False
        self.depths: dict[str, float] = {}
        self.ensured: Mapping[str, Queue] = {}

    async def ensure(self, queues: Mapping[str, Queue]) -> None:
        self.ensured = queues

    async def read(self) -> Mapping[str, Reading]:
        if self.away:
            return {}
        return {name: Reading(value, self._clock()) for name, value in self.depths.items()}

    async def remove(self) -> None:
        return

    async def close(self) -> None:
        return


class Drive:
    """A fleet under a controller, and the world around it. Endpoints are healthy at the gateway as soon as it knows
    them, unless `unhealthy` names the replica."""

    def __init__(self, *, ready_s: float = 0.5) -> None:
        self.now = START
        self.engine = MemoryEngine(lambda: self.now, behaviour=Behaviour(ready_s=ready_s, stop_s=0.2))
        self.gateways = MemoryGateways("g1")
        self.platform = MemoryPlatform()
        self.store = MemoryStore()
        self.queues = Queues(lambda: self.now)
        self.load: dict[str, Traffic] = {}
        self.unhealthy: set[str] = set()
        self.silent = False  # no gateway tells statistics
        self.kept_secrets: list[frozenset[str]] = []  # each time that all others were dropped
        self.prune_error: Exception | None = None
        self.least_serving: dict[str, int] = {}
        self.has_right = True  # no other controller may act
        self.tasks: asyncio.TaskGroup | None = None
        self.controller = self.new_controller()

    def new_controller(self) -> Controller:
        controller = Controller(
            Parts(
                self.engine,
                self.engine,
                self.platform,
                self.gateways,
                self.store,
                self._open_queues,
                lambda: self.now,
                prune_secrets=self._prune,
                require_right=self._require_right,
            )
        )
        controller.tasks = self.tasks
        return controller

    def _require_right(self) -> None:
        if not self.has_right:
            raise EngineUnavailable("another one may act")

    async def _open_queues(self, admin_url: str, fleet: str) -> Queues:
        return self.queues

    async def _prune(self, kept: frozenset[str]) -> None:
        if self.prune_error is not None:
            raise self.prune_error
        self.kept_secrets.append(kept)

    async def up(self, agents: Mapping[str, Any], **more: Any) -> None:
        """Stores a fleet and has the controller look at it."""
        stored = await self.store.read_fleet()
        await self.store.write_fleet(
            Fleet.model_validate({"fleet": "f", "agents": agents, **more}),
            directory="/",
            by="test",
            at=self.now,
            expected_generation=stored.generation if stored else 0,
        )
        self.controller.apply()

    async def go(self, seconds: float = 3.0, until: Callable[[], bool] | None = None) -> None:
        """Lets so much time pass, or less if the condition holds before."""
        end = self.now + seconds
        while self.now < end and not (until is not None and until()):
            self.now += STEP_S
            self.engine.tick()
            self.controller.look()
            await self.controller.watching.make_queues()
            await self.controller.watching.read_queues()
            await self.controller.run_pass()
            for _ in range(3):
                await asyncio.sleep(0)  # barriers end
            self._tell_statistics()
        if until is not None:
            assert until(), f"not within {seconds:g} s: {self.controller.states}"

    def state(self, agent: str) -> AgentState:
        return self.controller.states[agent]

    def route(self, agent: str) -> AgentRoute:
        assert self.gateways.snapshot is not None
        return self.gateways.snapshot.agents[agent]

    def said(self, kind: str) -> list[str]:
        return [event.message for event in self.controller.events if event.kind == kind]

    def _tell_statistics(self) -> None:
        if self.gateways.snapshot is None or self.silent:
            return
        for name, route in self.gateways.snapshot.agents.items():
            healthy = sum(1 for endpoint in route.endpoints if endpoint.replica not in self.unhealthy)
            self.least_serving[name] = min(healthy, self.least_serving.get(name, healthy))
            told = replace(self.load.get(name, Traffic()), healthy=healthy)
            if self.gateways.traffic().get(name) != told:
                self.gateways.count("g1", {name: told})


@contextlib.asynccontextmanager
async def driving(**options: Any) -> AsyncGenerator[Drive]:
    """A drive whose controller has taken over. Its gateways are all there: nobody waits for more of them to call."""
    drive = Drive(**options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway_feed, "GATHER_S", 0.0)
        async with asyncio.TaskGroup() as tasks:
            drive.tasks = drive.controller.tasks = tasks
            await drive.controller.take_over()
            yield drive
