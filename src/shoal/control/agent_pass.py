"""One agent's part of a pass: from signals to a decision, from a decision to a step, from a step to its route.

Everything here works on one `AgentState` and values; the controller gathers what comes out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.control.agent_state import STALE_S, AgentState, Event, Wired
from shoal.control.dependencies import describe_waits
from shoal.control.events import rollout_events
from shoal.core.action import Action
from shoal.core.autoscaler import decide, record_scaling
from shoal.core.decision import Decision
from shoal.core.observed import AgentObserved, Observed, Replica
from shoal.core.ownership import held_count
from shoal.core.reconcile import Step, Wanted, reconcile, reconcile_removed, takes_requests
from shoal.core.record import AgentRecord
from shoal.core.rollout import Rollout, RolloutPhase, advance, begin, complete, gives_up_at
from shoal.core.routes import route_for
from shoal.core.signals import Signals
from shoal.core.template import Template
from shoal.core.traffic import concurrency, quantile_s, rate
from shoal.spec.model import Agent, Kind

SCRAPE_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an agent's step wants done beside what it wrote into its state. `record` and `started_runs` hold once the
    engine took the actions."""

    actions: tuple[Action, ...] = ()
    decision: Decision | None = None  # only where the count changes
    events: tuple[Event, ...] = ()
    record: AgentRecord | None = None
    started_runs: tuple[str, ...] = ()


def read_signals(state: AgentState, spec: Agent, now: float, *, gateways: bool) -> Signals:
    """What is known of the agent's demand now. Without a gateway that tells (`gateways`), traffic is not known, which
    is not the same as none."""
    depth = state.depth if state.depth is not None and now - state.depth.at < STALE_S else None
    if spec.port is None or state.traffic is None or not gateways:
        return Signals(queue_depth=depth, usage=state.usage)
    return Signals(
        concurrency=concurrency(state.series, now),
        rps=rate(state.series, now),
        p95_s=quantile_s(state.series, now),
        queue_depth=depth,
        held=state.traffic.held,
        usage=state.usage,
    )


def scale_agent(state: AgentState, spec: Agent, now: float, *, gateways: bool) -> Outcome:
    """Asks the autoscaler, and writes the answer into the state."""
    current, released = state.record.desired, (*_release_expired(state, now), *_notice_owner(state, spec, now))
    state.signals = read_signals(state, spec, now, gateways=gateways)
    decision, state.history = decide(
        state.name,
        spec.scale,
        spec.resources,
        state.observed.replicas,
        current,
        state.signals,
        state.history,
        state.record.pin,
        now,
        state.held,
    )
    state.decision = decision
    moving_at = None if state.series.quiet_after(now) else now + SCRAPE_INTERVAL_S
    state.due_at = _earliest(decision.due_at, moving_at)
    if decision.count == current:
        return Outcome(events=released)
    state.history = record_scaling(state.history, spec.scale, current, decision.count, now)
    state.record = replace(state.record, desired=decision.count, ups=state.history.ups, downs=state.history.downs)
    said = Event(now, state.name, "scaled", f"{current} to {decision.count}: {decision.reason}")
    return Outcome(decision=decision, events=(*released, said))


def _release_expired(state: AgentState, now: float) -> tuple[Event, ...]:
    """A pin whose time is over is none."""
    pin = state.record.pin
    if pin is None or pin.until is None or now < pin.until:
        return ()
    state.record = state.record.pinned(None)
    return (Event(now, state.name, "released", f"to its targets: the time of the pin to {pin.count} is over"),)


def _notice_owner(state: AgentState, spec: Agent, now: float) -> tuple[Event, ...]:
    """Takes in who sets the count; where that is another one than before, it is an event."""
    before, observed, record = state.held, state.observed, state.record
    if state.overruled not in observed.owners.values():
        state.overruled = None  # it is Shoal's: whoever sets it from now on has it
    state.held = held_count(
        observed,
        record.rollout,
        stateful=spec.stateful,
        pinned=record.pin is not None,
        overruled=state.overruled,
    )
    if state.held is None and record.held_since is not None:
        state.record = replace(record, held_since=None)
        return (Event(now, state.name, "count", "is Shoal's again"),)
    if state.held is None or (before is not None and before.owner.name == state.held.owner.name):
        return ()
    if before is None and record.held_since is not None:
        return ()  # as the controller before this one saw it
    state.record = replace(record, held_since=now)
    return (Event(now, state.name, "count", f"is set by {state.held.owner.name} from now on"),)


def step_agent(
    state: AgentState,
    spec: Agent,
    template: Template,
    wired: Wired,
    now: float,
    *,
    chooses_victims: bool,
    native: bool,
) -> Outcome:
    """The next actions of a service or worker; its rollout, its route and what leaves go into the state. `native`: the
    engine's own autoscaler is to set its count, where nobody else does."""
    before, observed = state.record.rollout, state.observed_by(now)
    rollout = _further(state, begin(before, state.revision, wired.generation, observed, now=now), spec, observed, now)
    target, count = rollout.target(observed), 0 if state.waits_on else state.record.desired
    wanted = Wanted(
        agent=state.name,
        revision=target,
        template=template,
        count=count,
        environment=wired.environment_of(state.name, spec),
        ensure=(state.ensure or observed.lacking) and target == state.revision,
        update=spec.update,
        stable=rollout.fallback,
        now=now,
        autoscale=spec.scale if native and _can_hand_over(state, rollout, count) else None,
        claims=state.overruled is not None and observed.owners.get(target) == state.overruled,
    )
    step = reconcile(
        wanted,
        observed,
        leaving=state.leaving,
        left=state.left,
        healthy=state.healthy,
        chooses_victims=chooses_victims,
    )
    _lead(state, spec, step)
    if state.waits_on:
        state.settled, state.waiting_for = False, describe_waits(state)
    rollout, started = _judged(state, rollout, now), state.record.started or count > 0
    if native and state.settled and observed.autoscaler is None and _can_hand_over(state, rollout, count):
        state.settled, state.waiting_for = False, "the engine's autoscaler to take its count over"
    if rollout is not before or started is not state.record.started:
        state.record = replace(state.record.rolled(rollout), started=started)
    gives_up = None if state.waits_on else gives_up_at(rollout, spec, state.observed, now=now)
    state.due_at = _earliest(state.due_at, step.due_at, gives_up)
    return Outcome(step.actions, events=tuple(rollout_events(state.name, before, rollout, now)))


def _can_hand_over(state: AgentState, rollout: Rollout, count: int) -> bool:
    """Whether the count can be the engine's autoscaler's: it is nobody else's, and one version serves alone."""
    free = state.record.pin is None and (state.held is None or state.held.delegated)
    came_back = rollout.phase is RolloutPhase.FAILED and rollout.target(state.observed) != rollout.revision
    return free and count > 0 and (came_back or rollout.phase is RolloutPhase.COMPLETE)


def step_removed(state: AgentState) -> tuple[Action, ...]:
    """The next actions of an agent that left the fleet: none while one that left it too still depends on this one."""
    state.due_at = None
    if state.waits_on:
        state.settled, state.waiting_for = False, describe_waits(state)
        return ()
    step = reconcile_removed(state.name, state.observed, leaving=state.leaving, left=state.left)
    if state.route is not None:
        state.route = replace(state.route, endpoints=(), hold=False)
    _remember(state, step, (), step.leaving | frozenset(r.id for r in state.observed.replicas if takes_requests(r)))
    return step.actions


def take_in(state: AgentState, observed: Observed) -> bool:
    """Takes the agent's observation in; says whether it is another one than before."""
    there = observed.agents.get(state.name)
    if there is None:
        if not observed.complete or state.observed == AgentObserved(state.name):
            return False
        there = AgentObserved(state.name)
    if there is state.observed:
        return False
    state.observed = there
    return True


def _lead(state: AgentState, spec: Agent, step: Step) -> None:
    """Takes the step into the state: whom the gateway sends to, who leaves, whether requests are held."""
    hold = _holds(state, spec, step)
    serving, leaving = step.serving, step.leaving
    if hold and leaving and not state.hold_acknowledged:
        # The last replica goes only once the hold is in force: else a request between the two would fail. Who left
        # before may be stopped in this very step, and stays away.
        leaving &= state.leaving
        serving = tuple(r for r in state.observed.replicas if takes_requests(r) and r.id not in leaving)
    _remember(state, step, serving, leaving)
    if spec.kind is Kind.SERVICE:
        route = route_for(state.name, spec, serving, hold=hold)
        state.route = state.route if route == state.route else route  # the same object is not told again
        if not hold:
            state.hold_acknowledged = False
        elif not state.hold_acknowledged:
            state.settled, state.waiting_for = False, "the gateway to hold its requests"
    else:
        state.route = None


def _holds(state: AgentState, spec: Agent, step: Step) -> bool:
    """Requests are held while nobody can serve them and a request is what wakes the agent; until the gateway itself
    sees a healthy endpoint, not only the engine."""
    if spec.kind is not Kind.SERVICE or spec.scale.min > 0:
        return False
    if state.record.desired == 0 or not step.serving:
        return True
    return (state.route is None or state.route.hold) and (state.healthy or 0) < 1


def _further(state: AgentState, rollout: Rollout, spec: Agent, observed: AgentObserved, now: float) -> Rollout:
    """The rollout after this look. While the first start waits there is nothing that could make progress; the time for
    it begins with the start."""
    if state.waits_on:
        return rollout
    if not state.record.started:
        rollout = replace(rollout, progressed_at=now)
    return advance(rollout, spec, observed, desired=state.record.desired, healthy=state.healthy, now=now)


def _judged(state: AgentState, rollout: Rollout, now: float) -> Rollout:
    """The rollout, complete where nothing is left to do; a given up one is never what was wished."""
    if rollout.target(state.observed) != rollout.revision:
        state.settled, state.waiting_for = False, f"another version: {rollout.revision} {rollout.reason}"
    elif state.settled and rollout.phase is not RolloutPhase.COMPLETE:
        state.due_at = now  # what was kept to come back to can go
        return complete(rollout, now=now)
    return rollout


def _remember(state: AgentState, step: Step, serving: tuple[Replica, ...], leaving: frozenset[str]) -> None:
    state.serving = serving
    state.leaving = leaving
    state.left &= leaving
    state.settled = step.settled
    state.waiting_for = step.waiting_for
    state.ensure = False


def _earliest(*instants: float | None) -> float | None:
    return min((instant for instant in instants if instant is not None), default=None)
