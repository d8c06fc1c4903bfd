"""What must hold at every step, whatever the world does. Each check names the rule that it found broken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shoal.control.gateway_feed import BARRIER_S
from shoal.core.action import Action, RunJob
from shoal.core.observed import AgentObserved, Phase
from shoal.core.record import AgentRecord
from shoal.core.routing import Snapshot
from shoal.core.schedule import CATCH_UP_LIMIT, next_fire
from shoal.spec.model import Agent, Fleet, Kind
from tests.simulation.gateways import COMES_BACK_S, SimGateway

if TYPE_CHECKING:
    from tests.simulation.world import Life, World

# A crash that the seed drew excuses what follows from it until everybody can know of it: looks may be 2 s old, calls
# take as long again, and a gateway is given BARRIER_S.
EXCUSED_S = 12.0
_TAKEN_UP_S = 0.5
_SURGE = 0.25  # of a rolling change, by default
_NOBODY = AgentObserved("")
START = 1_700_000_000.0  # where the engine's clock begins


class Checks:
    """Looks at each act, each snapshot that a gateway takes into use, each tick, and at the end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._identities: Mapping[str, AgentObserved] = {}
        self._started: dict[str, set[float]] = {}
        self._promised_from: dict[str, float] = {}
        self._caught_up: dict[str, tuple[float, list[float]]] = {}  # when, and the runs that were started then
        self._begun: set[str] = set()  # agents that were started
        self._forgotten_at: dict[str, float] = {}
        self._ready_at: dict[str, float] = {}

    # An act.

    def acted(self, life: Life, action: Action, before: AgentObserved | None, after: AgentObserved | None) -> None:
        """After one action of one controller took effect."""
        before, after = before or _NOBODY, after or _NOBODY
        if isinstance(action, RunJob):
            self._run_started(action, before, after)
            return
        fleet = life.controller.stored.fleet if life.controller.stored is not None else None
        spec = fleet.agents.get(action.agent) if fleet is not None else None
        if fleet is not None and spec is not None and sum(after.counts.values()) and not sum(before.counts.values()):
            self._first_start(life, fleet, spec, action)
        self._counts(life, action, spec, before, after)
        self._victims(life, action, spec, before, after)

    def _first_start(self, life: Life, fleet: Fleet, spec: Agent, action: Action) -> None:
        """Each that it depends on is ready, or was as far as the controller may know; or it sleeps."""
        now = self._world.loop.time()
        if action.agent in self._begun or now - self._forgotten_at.get(action.agent, -1e9) < EXCUSED_S:
            return
        agents = self._world.engine.look()
        for name in spec.depends_on:
            other, state = fleet.agents.get(name), life.controller.states.get(name)
            if other is None or state is None or (other.scale.min == 0 and state.record.desired == 0):
                continue
            ready_now = self._serving(agents.get(name, _NOBODY)) > 0
            if not ready_now and now - self._ready_at.get(name, -1e9) > EXCUSED_S:
                self._broken(f"{action.agent} started before {name} was ready", action)

    def _counts(
        self, life: Life, action: Action, spec: Agent | None, before: AgentObserved, after: AgentObserved
    ) -> None:
        total_before, total_after = sum(before.counts.values()), sum(after.counts.values())
        if spec is None:
            if total_after > total_before:
                self._broken("an agent that left the fleet grew", action)
            return
        record = life.controller.states[action.agent].record
        if total_after > total_before:
            most = max(spec.scale.max, spec.scale.min, record.pin.count if record.pin is not None else 0)
            limit = most if spec.stateful else most + math.ceil(most * _SURGE)
            if total_after > limit:
                self._broken(f"above max: {total_after} replicas, at most {limit}", action)
        if self._excused(action.agent):
            return
        if spec.stateful:  # stop first, one after the other
            ready = self._serving(after)
            if self._serving(before) - ready > 1 and ready < record.desired:
                self._broken("more than one identity stopped at once", action)
            return
        kept = record.desired
        if total_after < min(total_before, kept) and len([n for n in before.counts.values() if n]) == 1:
            self._broken(f"below the wished count: {total_before} to {total_after} of {record.desired}", action)
        ready_before, ready_after = self._in_use(spec, before, 5.0), self._in_use(spec, after, 0.0)
        if ready_after < min(ready_before, kept):
            self._broken(f"ready replicas stopped: {ready_before} to {ready_after} of {record.desired}", action)

    def _victims(
        self, life: Life, action: Action, spec: Agent | None, before: AgentObserved, after: AgentObserved
    ) -> None:
        world = self._world
        now = world.loop.time()
        serving_after = {r.id for r in after.replicas if r.phase is Phase.RUNNING}
        stopped = [r.id for r in before.replicas if r.phase is Phase.RUNNING and r.ready and r.id not in serving_after]
        if not stopped or self._excused(action.agent):
            return
        for gateway in world.gateways:
            route = gateway.applied.agents.get(action.agent) if gateway.applied is not None else None
            if route is None or not self._counts_for(gateway, life):
                continue
            still = {endpoint.replica for endpoint in route.endpoints} & set(stopped)
            for replica in sorted(still):
                if now - life.absent_since.get(replica, now) < BARRIER_S - 1e-6:
                    self._broken(f"{replica} stopped while {gateway.name} sends to it", action)
            sleeps = spec is not None and spec.kind is Kind.SERVICE and not self._serving(after)
            unheld = now - life.hold_since.get(action.agent, now) < BARRIER_S - 1e-6
            if sleeps and spec is not None and spec.scale.min == 0 and not route.hold and unheld:
                self._broken(f"the last replica stopped while {gateway.name} does not hold", action)

    def _counts_for(self, gateway: SimGateway, life: Life) -> bool:
        """Whether the controller has to wait for this gateway: it is on its line, or was so recently that it may come
        back; a new controller must give those that it does not know yet the same time. What was on another's line it
        can't know."""
        since = max(gateway.lost_at if gateway.lost_by is life else -1e9, life.started_at)
        return gateway.life is life or self._world.loop.time() - since < COMES_BACK_S - 0.05

    # A snapshot in use.

    def applied(self, gateway: SimGateway, before: Snapshot | None, after: Snapshot, received_at: float) -> None:
        """After a gateway took a snapshot into use: nobody who could serve is left with nobody."""
        world = self._world
        if before is None or world.loop.time() - received_at >= BARRIER_S or world.fleet is None:
            return
        for name, route in after.agents.items():
            old, spec = before.agents.get(name), world.fleet.agents.get(name)
            if old is None or spec is None or spec.scale.min == 0 or name in world.zero_pins or self._excused(name):
                continue
            if received_at - world.added_at.get(name, -1e9) < _TAKEN_UP_S:  # sent while it was not wished for
                continue
            could = [e.replica for e in old.endpoints if world.serves(e.replica)]
            if spec.stateful and len(could) == 1:  # stop first, from the highest on: nobody else may be ready
                continue
            if could and not any(world.serves(e.replica) for e in route.endpoints):
                self._broken(f"0 serving at {gateway.name}, of {', '.join(could)} that could", name)

    # The truth between.

    def ticked(self, agents: Mapping[str, AgentObserved]) -> None:
        """Never two holders of an identity. And who is there, and who is ready."""
        now = self._world.loop.time()
        for name, agent in agents.items():
            if agent.replicas:
                self._begun.add(name)
            if self._serving(agent):
                self._ready_at[name] = now
        if agents is self._identities:
            return
        self._identities = agents
        for name, agent in agents.items():
            holders = [
                r.ordinal
                for r in agent.replicas
                if r.ordinal is not None and r.phase in {Phase.RUNNING, Phase.STOPPING} and r.started_at is not None
            ]
            if len(holders) != len(set(holders)):
                self._broken(f"two holders of an identity: {holders}", name)

    # Jobs.

    def _run_started(self, action: RunJob, before: AgentObserved, after: AgentObserved) -> None:
        known = {run.run_id for run in before.runs}
        if action.run_id in known or all(run.run_id != action.run_id for run in after.runs):
            return
        times = self._started.setdefault(action.agent, set())
        at = _scheduled_at(action)
        if at in times:
            self._broken("a job ran twice for one scheduled time", action)
        times.add(at)
        now = self._world.loop.time()
        since, together = self._caught_up.get(action.agent, (now, []))
        together = [*together, at] if since == now else [at]
        self._caught_up[action.agent] = now, together
        if len(together) >= CATCH_UP_LIMIT and action.agent in self._promised_from:
            self._promised_from[action.agent] = min(together) - 1  # what is older is not promised

    def forgotten(self, agent: str) -> None:
        """The engine forgot the agent: what it ran before is not known any more."""
        self._started.pop(agent, None)
        self._begun.discard(agent)
        self._forgotten_at[agent] = self._world.loop.time()

    def scheduled_anew(self, agent: str) -> None:
        """From what is stored next on, this agent's schedule promises something."""
        self._promised_from.pop(agent, None)

    def stored(self, records: Mapping[str, AgentRecord | None]) -> None:
        """What the controller remembers of its jobs."""
        for name, record in records.items():
            if record is None:
                self._promised_from.pop(name, None)
                continue
            spec = self._world.fleet.agents.get(name) if self._world.fleet is not None else None
            if spec is None or spec.schedule is None or record.last_fire_at is None:
                continue
            if record.schedule == f"{spec.schedule.cron} {spec.schedule.time_zone}":
                self._promised_from.setdefault(name, record.last_fire_at)

    def jobs_at_rest(self, records: Mapping[str, AgentRecord]) -> None:
        """Nothing that `catch_up` promises was missed."""
        for name, since in sorted(self._promised_from.items()):
            spec = self._world.fleet.agents.get(name) if self._world.fleet is not None else None
            if spec is None or spec.schedule is None or spec.schedule.catch_up == "none":
                continue
            last = records[name].last_fire_at
            assert last is not None
            due = next_fire(spec.schedule.cron, spec.schedule.time_zone, last)
            if due is not None and due < self._world.wall() - 5.0:
                self._broken(f"nothing started at {due:.0f}", name)
            of = spec.schedule
            at = next_fire(of.cron, of.time_zone, last - 0.001 if of.catch_up == "one" else since)
            while at is not None and since < at <= last:
                if at not in self._started.get(name, set()):
                    self._broken(f"the run of {at:.0f} was missed", name)
                at = next_fire(spec.schedule.cron, spec.schedule.time_zone, at)

    # Within.

    def _serving(self, agent: AgentObserved) -> int:
        return sum(1 for r in agent.replicas if r.phase is Phase.RUNNING and r.ready)

    def _in_use(self, spec: Agent, agent: AgentObserved, for_s: float) -> int:
        """How many are ready, and known for it: what became ready a moment ago may be taken for one that is not."""
        if spec.kind is Kind.SERVICE:
            listed = self._world.listed(agent.agent)
            return sum(1 for r in agent.replicas if r.phase is Phase.RUNNING and r.ready and r.id in listed)
        known_by = START + self._world.loop.time() - for_s
        return sum(1 for r in agent.replicas if r.ready and r.ready_at is not None and r.ready_at <= known_by)

    def _excused(self, agent: str) -> bool:
        return self._world.loop.time() - self._world.disturbed_at.get(agent, -1e9) < EXCUSED_S

    def _broken(self, rule: str, about: object) -> None:
        self._world.violated(f"{rule} ({about})")


def _scheduled_at(action: RunJob) -> float:
    at = datetime.strptime(action.run_id.rpartition("-")[2], "%Y%m%dt%H%M%Sz").replace(tzinfo=UTC)
    return at.timestamp()
