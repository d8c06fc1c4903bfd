"""What rest is: the wished state, everywhere, and nothing left to do. Found out without asking the controller alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shoal.core.observed import AgentObserved, Phase
from shoal.core.plan import make_plan
from shoal.core.revision import revision_of, template_of
from shoal.spec.model import Agent, Fleet, Kind

if TYPE_CHECKING:
    from tests.simulation.world import Life, World

_DOWN_WINDOW_S = 300.0  # of an HPA that says nothing else
_TOLERANCE = 0.1


def longest_window_s(world: World) -> float:
    """How long a count may stay up by a window, and come down by its policies."""
    fleet = world.fleet
    windows = (
        [agent.scale.behavior.scale_down.stabilization_window_s for agent in fleet.agents.values()] if fleet else []
    )
    return max((_DOWN_WINDOW_S if window is None else window for window in windows), default=0.0) + 60.0


def unrest(world: World) -> list[str]:
    """Why this is not the rest that is wished for; empty if it is."""
    fleet, living = world.fleet, world.living
    if fleet is None or len(living) != 1:
        return [f"{len(living)} controllers"]
    (life,) = living
    found = _controller(life, fleet)
    agents = world.engine.look()
    found += [f"{name} is still there" for name in sorted(agents.keys() - fleet.agents.keys())]
    for name, spec in sorted(fleet.agents.items()):
        if spec.kind is not Kind.JOB:
            found += _agent(world, life, name, spec, agents.get(name) or AgentObserved(name))
    for gateway in world.gateways:
        if gateway.life is not life:
            found.append(f"{gateway.name} is not connected")
        elif gateway.applied is not life.link.snapshot:
            found.append(f"{gateway.name} has another snapshot")
    return found


def _controller(life: Life, fleet: Fleet) -> list[str]:
    controller = life.controller
    found = [f"{where}: {message}" for where, message in sorted(controller.problems.items())]
    found += [
        f"{name} is not settled: {state.failure or state.waiting_for}"
        for name, state in sorted(controller.states.items())
        if not state.settled and (state.spec is None or state.spec.kind is not Kind.JOB)  # whose runs begin at any time
    ]
    carried_out = controller.carried_out
    if carried_out is None or make_plan(carried_out, fleet, life.controller.parts.engine.capabilities):
        found.append("the fleet in force is not the stored one")
    return found


def _agent(world: World, life: Life, name: str, spec: Agent, there: AgentObserved) -> list[str]:
    state = life.controller.states.get(name)
    if state is None or world.fleet is None:
        return [f"{name} is not known"]
    found: list[str] = []
    desired = state.record.desired
    if desired not in _wished(world, name, spec, desired):
        found.append(f"{name}: {desired} wished, expected one of {sorted(_wished(world, name, spec, desired))}")
    revision = revision_of(template_of(world.fleet, name, {}))
    counts = {key: count for key, count in there.counts.items() if count}
    if counts != ({revision: desired} if desired else {}) or set(there.counts) - {revision}:
        found.append(f"{name}: {dict(there.counts)}, expected {desired} of {revision}")
    ready = [r for r in there.replicas if r.phase is Phase.RUNNING and r.ready]
    if len(ready) != desired or len(there.replicas) != desired:
        found.append(f"{name}: {len(ready)} ready of {len(there.replicas)}, expected {desired}")
    if spec.kind is Kind.SERVICE:
        route = life.link.snapshot.agents.get(name) if life.link.snapshot is not None else None
        if route is None or {e.replica for e in route.endpoints} != {r.id for r in ready}:
            found.append(f"{name}: the route is not to those that are ready")
        elif route.hold is not (desired == 0):
            found.append(f"{name}: hold is {route.hold} with {desired} replicas")
    return found


def _wished(world: World, name: str, spec: Agent, desired: int) -> set[int]:
    """The counts that are right for the load: what it asks for, or the count now if that is near enough."""
    target = spec.scale.target.concurrency or spec.scale.target.queue_depth
    load = world.depths["tasks"] if spec.kind is Kind.WORKER else world.demand.get(name, 0)
    asked = math.ceil(load / target) if target else (1 if load else 0)
    wished = {max(spec.scale.min, min(asked, max(spec.scale.max, spec.scale.min)))}
    if target and desired and abs(load / (target * desired) - 1) <= _TOLERANCE + 1e-9:
        wished.add(desired)
    if desired > asked and load and spec.scale.min <= desired == 1:
        wished.add(1)
    return wished
