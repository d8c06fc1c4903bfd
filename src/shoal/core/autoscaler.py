"""How many replicas an agent should have: the one place where the count is decided, live and replayed.

`decide` takes what the triggers ask for (`autoscaler_demand`) through Kubernetes' windows, rates and bounds
(`hpa_behavior`), and adds what an HPA doesn't have: a pin, cron windows, waking from zero, and the instant at which the
answer could change by itself. `shoal.core.decision` has the contract and what is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from shoal.core.autoscaler_demand import Demand, Trigger, demand_of, next_edge, pods_of, triggers_of, work_waits
from shoal.core.autoscaler_memory import longest_period_s, remember, to_hpa
from shoal.core.autoscaler_words import describe_held, reason_for
from shoal.core.decision import Decision, Pin, Recommendation, ScaleEvent, ScalingHistory
from shoal.core.hpa_behavior import Direction, down_rules, normalize_with_behavior, up_rules
from shoal.core.hpa_numbers import nanoseconds
from shoal.core.hpa_types import Behavior, HpaSpec, Pod, Policy, Rules
from shoal.core.observed import Replica
from shoal.core.ownership import Held
from shoal.core.signals import Signals
from shoal.spec.model import Resources
from shoal.spec.scaling import Scale, ScalingRules

_CAPS = {
    "TooManyReplicas": "max",
    "TooFewReplicas": "min",
    "ScaleUpLimit": "scale_up policy",
    "ScaleDownLimit": "scale_down policy",
}
_SELECT: Mapping[str, Literal["Max", "Min", "Disabled"]] = {"max": "Max", "min": "Min", "disabled": "Disabled"}


@dataclass(frozen=True, slots=True)
class _Question:
    """All that an answer depends on, but for the count, the history and the time."""

    scale: Scale
    spec: HpaSpec
    up: Direction
    down: Direction
    replicas: tuple[Replica, ...]
    pods: tuple[Pod, ...]
    triggers: tuple[Trigger, ...]
    pin: Pin | None
    held: Held | None
    work: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    """`proposal` is the count before windows, rates and bounds, which is remembered; `None` where nothing is."""

    count: int
    capped_by: str
    demand: Demand
    proposal: int | None = None


def decide(
    agent: str,
    scale: Scale,
    resources: Resources,
    replicas: Sequence[Replica],
    current: int,
    signals: Signals,
    history: ScalingHistory,
    pin: Pin | None,
    now: float,
    held: Held | None = None,
) -> tuple[Decision, ScalingHistory]:
    """How many replicas there should be now, and what to remember of it.

    `current` is the count wanted so far, `replicas` are all that exist of it, `now` is an epoch second. The rules, the
    first that applies:

    1. A count that is `held` by another owner: as that one set it.
    2. A pin in force: its count, whatever the bounds say.
    3. Above `max` or below `min`: the bound, at once.
    4. All triggers fail: no change; some fail: no less than now.
    5. Else the largest proposal, within the windows of recent recommendations, the policies' rates and the bounds.
    6. At zero with work waiting: at least 1, whatever the windows and rates say.

    `Decision.due_at` holds once the decided count is set and recorded by `record_scaling`.
    """
    question = _question(scale, resources, tuple(replicas), signals, pin, held)
    if not history.recommendations and current > 0:
        history = replace(history, recommendations=(Recommendation(now, current),))
    answer = _answer(question, current, history, now)
    remembered = _remembered(question, history, answer, now)
    decision = Decision(
        agent,
        now,
        current,
        answer.count,
        describe_held(held)
        if held is not None
        else reason_for(
            answer.demand, current, answer.count, answer.capped_by, held=signals.held, proposal=answer.proposal
        ),
        answer.capped_by,
        _due_at(question, current, answer, record_scaling(remembered, scale, current, answer.count, now), now),
        answer.demand.proposals,
    )
    return decision, remembered


def record_scaling(history: ScalingHistory, scale: Scale, before: int, after: int, now: float) -> ScalingHistory:
    """The history once the count has been changed. Events that no policy's period reaches any more are dropped."""
    if before == after:
        return history
    cutoff_ns = nanoseconds(now) - nanoseconds(longest_period_s(*_directions(hpa_spec(scale))))
    ups = tuple(event for event in history.ups if nanoseconds(event.at) > cutoff_ns)
    downs = tuple(event for event in history.downs if nanoseconds(event.at) > cutoff_ns)
    if after > before:
        return replace(history, ups=(*ups, ScaleEvent(now, after - before)), downs=downs)
    return replace(history, ups=ups, downs=(*downs, ScaleEvent(now, before - after)))


def hpa_spec(scale: Scale) -> HpaSpec:
    """The agent's bounds and behaviour as those of an HPA, whose defaults are the agent's too."""
    return HpaSpec(
        max_replicas=max(scale.max, scale.min),
        min_replicas=scale.min,
        behavior=Behavior(_rules(scale.behavior.scale_up), _rules(scale.behavior.scale_down)),
    )


def _rules(rules: ScalingRules) -> Rules:
    policies = rules.policies
    return Rules(
        stabilization_window_s=rules.stabilization_window_s,
        select_policy=_SELECT[rules.select_policy],
        policies=None
        if policies is None
        else tuple(Policy("Pods" if p.type == "pods" else "Percent", p.value, p.period_s) for p in policies),
        tolerance=rules.tolerance,
    )


def _directions(spec: HpaSpec) -> tuple[Direction, Direction]:
    behavior = spec.behavior or Behavior()
    return up_rules(behavior.scale_up), down_rules(behavior.scale_down, spec.downscale_stabilization_s)


def _question(
    scale: Scale,
    resources: Resources,
    replicas: tuple[Replica, ...],
    signals: Signals,
    pin: Pin | None,
    held: Held | None,
) -> _Question:
    spec = hpa_spec(scale)
    up, down = _directions(spec)
    return _Question(
        scale,
        spec,
        up,
        down,
        replicas,
        pods_of(replicas, spec),
        triggers_of(scale, resources, replicas, signals),
        pin,
        held,
        work_waits(signals),
    )


def _answer(question: _Question, current: int, history: ScalingHistory, now: float) -> _Answer:
    spec, pin = question.spec, question.pin
    demand = demand_of(question.triggers, question.scale.cron, question.pods, spec, current, now)
    proposal = _with_work(demand.count, current, work=question.work)
    if question.held is not None:
        return _Answer(question.held.count, "owner", demand, proposal)
    if pin is not None and (pin.until is None or now < pin.until):
        return _Answer(pin.count, "pin", demand, proposal)
    if current > spec.max_replicas:
        return _Answer(spec.max_replicas, "max", demand)
    if current < spec.min_replicas:
        return _Answer(spec.min_replicas, "min", demand)
    if proposal is None:
        return _Answer(current, "", demand)
    normalized = normalize_with_behavior(spec, question.up, question.down, proposal, current, to_hpa(history), now)
    capped_by = _CAPS.get(normalized.limited, "" if normalized.stabilized == "ReadyForNewScale" else "stabilization")
    if capped_by == "stabilization" and proposal < normalized.replicas == spec.min_replicas:
        capped_by = "min"  # where both hold, the bound is what people can change
    if current == 0 and question.work:
        return _Answer(max(normalized.replicas, 1), capped_by, demand, proposal)
    return _Answer(normalized.replicas, capped_by, demand, proposal)


def _with_work(count: int | None, current: int, *, work: bool) -> int | None:
    """While work waits at least one replica is asked for; at zero even where no trigger can tell."""
    if not work:
        return count
    if count is None:
        return 1 if current == 0 else None
    return max(count, 1)


def _remembered(question: _Question, history: ScalingHistory, answer: _Answer, now: float) -> ScalingHistory:
    if answer.proposal is None:
        return history
    new = Recommendation(now, answer.proposal)
    return replace(
        history,
        recommendations=remember(history.recommendations, new, question.up.window_s, question.down.window_s),
    )


def _due_at(question: _Question, current: int, answer: _Answer, history: ScalingHistory, now: float) -> float | None:
    """The next instant at which the answer could change on equal samples, once it is carried out and recorded.

    Whatever is asked in between only adds recommendations that the answer follows already, so it is enough to look at
    the instants at which something remembered stops counting.
    """
    pin, count = question.pin, answer.count
    if question.held is not None:
        return None
    if pin is not None and (pin.until is None or now < pin.until):
        return pin.until
    edge = next_edge(question.scale.cron, question.replicas, question.scale, question.spec, now)
    again = answer if count == current else _answer(question, count, history, now)
    if again.count != count:
        return now
    if again.proposal in {count, None}:
        return edge  # nothing is held back
    for instant in _expiries(question, history, now):
        if edge is not None and instant >= edge:
            break
        if _answer(question, count, history, instant).count != count:
            return instant
    return edge


def _expiries(question: _Question, history: ScalingHistory, now: float) -> list[float]:
    """When recommendations leave a window, and scale events a policy's period: later than `now`, in order."""
    windows = {question.up.window_s, question.down.window_s}
    periods = {policy.period_s for policy in (*question.up.policies, *question.down.policies)}
    ends_ns = {nanoseconds(past.at) + nanoseconds(window) for past in history.recommendations for window in windows}
    ends_ns |= {nanoseconds(e.at) + nanoseconds(period) for e in (*history.ups, *history.downs) for period in periods}
    now_ns = nanoseconds(now)
    return [_instant(end_ns) for end_ns in sorted(ends_ns) if end_ns > now_ns]


def _instant(ns: int) -> float:
    """The double that is taken for this many nanoseconds or, if there is none, the next later one."""
    instant = ns / 10**9
    while nanoseconds(instant) < ns:
        instant = math.nextafter(instant, math.inf)
    return instant
