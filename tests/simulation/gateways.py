"""Gateways that live on their own: each applies what it is sent a moment later, checks its endpoints itself, serves on
from what it knows while nobody tells it anything, and comes back to whoever is controller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.core.observed import Phase
from shoal.core.routing import Snapshot, Traffic
from shoal.proxy.memory import MemoryGateways

if TYPE_CHECKING:
    from tests.simulation.world import Life, World

COMES_BACK_S = 2.0


class SimLink(MemoryGateways):
    """A controller's side of the line."""

    def __init__(self, world: World, life: Life) -> None:
        super().__init__(agrees=False, comes_back_s=COMES_BACK_S)
        self._world, self._life = world, life

    def push(self, snapshot: Snapshot) -> int:
        version = super().push(snapshot)
        self._world.pushed(self._life, snapshot, version)
        return version


class SimGateway:
    """One gateway process and its Envoy."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.life: Life | None = None  # whose line it is on
        self.applied: Snapshot | None = None
        self.lost_at = -100.0
        self.lost_by: Life | None = None
        self.away_until = 0.0
        self._world = world
        self._healthy: dict[str, bool] = {}
        self._told: dict[str, Traffic] = {}
        self._apply_at = 0.0

    def connect(self, life: Life) -> None:
        """Says who it is, and is told everything."""
        self.life, self._told = life, {}
        life.link.connect(self.name)
        if life.link.snapshot is not None:
            self.receive(life, life.link.snapshot, life.link.version)

    def disconnect(self) -> None:
        """Its line broke; it serves on."""
        if self.life is None:
            return
        if self.name in self.life.link.live:
            self.life.link.disconnect(self.name)
        self.lost_by, self.life, self.lost_at = self.life, None, self._world.loop.time()

    def receive(self, life: Life, snapshot: Snapshot, version: int) -> None:
        """Takes it in; it is in use a moment later."""
        world = self._world
        slow = world.lasting("late_acknowledgement")
        delay_s = world.chance.uniform(0.5, 9.0) if slow and world.chance.random() < 0.6 else world.latency()
        self._apply_at = max(world.loop.time() + delay_s, self._apply_at + 1e-6)  # in the order in which it came
        world.loop.call_at(self._apply_at, self._apply, life, snapshot, version, world.loop.time())

    def _apply(self, life: Life, snapshot: Snapshot, version: int, received_at: float) -> None:
        if life is not self.life:
            return  # a connection that is over; the next one tells it everything again
        before = self.applied
        self.applied = snapshot
        self._world.applied(self, before, snapshot, received_at)
        if self._world.lasting("refusal"):
            life.link.refusals[self.name] = "no"
            self._world.loop.call_later(1.0, self._apply, life, snapshot, version, received_at)
            return
        life.link.refusals.pop(self.name, None)
        self._world.loop.call_later(self._world.latency(), self._acknowledge, life, version)

    def _acknowledge(self, life: Life, version: int) -> None:
        if life is self.life and life.link.live and self.name in life.link.live:
            life.link.acknowledge(self.name, max(version, life.link.acknowledged(self.name)))

    def tick(self) -> None:
        """Checks the endpoints, and tells what it counts."""
        if self.applied is None:
            return
        world = self._world
        changed: dict[str, Traffic] = {}
        for agent, route in self.applied.agents.items():
            healthy = sum(1 for endpoint in route.endpoints if world.serves(endpoint.replica))
            load = world.share(agent, self)
            told = self._told.get(agent)
            held = round(load) if route.hold and not healthy else 0
            counts = Traffic(active=0 if not healthy else round(load), held=held, healthy=healthy)
            if told != counts:
                changed[agent] = self._told[agent] = counts
        if changed and self.life is not None:
            self.life.link.count(self.name, changed)


def takes(phase: Phase, ready: bool) -> bool:
    """Whether a replica really answers."""
    return phase is Phase.RUNNING and ready
