"""What an agent's triggers ask for: from signals to proposals, by the arithmetic of `shoal.core.hpa`.

concurrency, rps, queue_depth   totals over all replicas, against the target a replica (external, average value)
p95                             one value, times the replicas that are ready (object, value)
cpu, memory                     percent of the request, a replica (resource utilisation)
cron                            the window's count while it is open
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal.core.decision import Proposal
from shoal.core.hpa import combine
from shoal.core.hpa_replicas import propose
from shoal.core.hpa_types import (
    ExternalMetric,
    HpaSpec,
    Metric,
    MetricOutcome,
    ObjectMetric,
    Pod,
    PodPhase,
    ResourceMetric,
    Sample,
)
from shoal.core.observed import Phase, Replica
from shoal.core.schedule import next_fire
from shoal.core.signals import Reading, Signals
from shoal.spec.model import Resources
from shoal.spec.scaling import CronWindow, Scale

_POD_PHASES: Mapping[Phase, PodPhase] = {
    Phase.PENDING: "Pending",
    Phase.RUNNING: "Running",
    Phase.STOPPING: "Running",  # and deleting
    Phase.BACKOFF: "Running",  # as in Kubernetes, where it is not ready and has no sample
    Phase.FAILED: "Failed",
    Phase.SUCCEEDED: "Succeeded",
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """One target and what was measured. `value` and `target` are in the unit that people write."""

    name: str
    metric: Metric
    value: float | None
    target: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What all triggers together ask for; `count` is `None` where they can't tell, `error` says why.

    `leading` is the index in `proposals` of the one that asks for most; `None` where none asks for any.
    """

    count: int | None
    proposals: tuple[Proposal, ...]
    leading: int | None
    error: str = ""


def work_waits(signals: Signals) -> bool:
    """Whether there is anything that a replica is needed for, however little."""
    readings = (signals.queue_depth, signals.concurrency)
    return signals.held > 0 or any(reading is not None and reading.value > 0 for reading in readings)


def pods_of(replicas: Sequence[Replica], spec: HpaSpec) -> tuple[Pod, ...]:
    """Replicas as the arithmetic sees them."""
    return tuple(_pod(replica, spec) for replica in replicas)


def _pod(replica: Replica, spec: HpaSpec) -> Pod:
    changed_at = replica.started_at if replica.ready_at is None else replica.ready_at
    if not replica.ready and replica.ready_at is not None and replica.started_at is not None:
        # It was ready once, which Kubernetes can only guess from a change long after the start.
        changed_at = max(replica.ready_at, replica.started_at + spec.initial_readiness_delay_s)
    return Pod(
        replica.id,
        phase=_POD_PHASES[replica.phase],
        deleting=replica.phase is Phase.STOPPING,
        started_at=replica.started_at,
        ready="True" if replica.ready else "False",
        ready_changed_at=changed_at,
    )


def triggers_of(
    scale: Scale, resources: Resources, replicas: Sequence[Replica], signals: Signals
) -> tuple[Trigger, ...]:
    """The agent's targets with what is known of each, in the order of the spec."""
    target = scale.target
    found: list[Trigger] = []
    if target.cpu is not None:
        usage = {name: Sample(_milli(u.cpu_cores), u.at, u.window_s) for name, u in signals.usage.items()}
        found.append(_usage_trigger("cpu", target.cpu, usage, replicas, resources.cpu))
    if target.memory is not None:
        usage = {name: Sample(u.memory_bytes * 1000, u.at, u.window_s) for name, u in signals.usage.items()}
        found.append(_usage_trigger("memory", target.memory, usage, replicas, resources.memory_bytes))
    if target.concurrency is not None:
        found.append(_total_trigger("concurrency", target.concurrency, signals.concurrency))
    if target.rps is not None:
        found.append(_total_trigger("rps", target.rps, signals.rps))
    if target.p95_s is not None:
        found.append(_p95_trigger(target.p95_s, signals))
    if target.queue_depth is not None:
        found.append(_total_trigger("queue_depth", target.queue_depth, signals.queue_depth))
    return tuple(found)


def _usage_trigger(
    resource: str, percent: float, usage: Mapping[str, Sample], replicas: Sequence[Replica], request: float | None
) -> Trigger:
    requests = {} if request is None else {replica.id: _milli(request) for replica in replicas}
    metric = ResourceMetric(resource, usage or None, max(1, round(percent)), requests_milli=requests)
    return Trigger(resource, metric, None, percent)


def _total_trigger(name: str, target: float, reading: Reading | None) -> Trigger:
    values = None if reading is None else (_milli(reading.value),)
    metric = ExternalMetric(name, values, target_average_milli=max(1, _milli(target)))
    return Trigger(name, metric, None if reading is None else reading.value, target)


def _p95_trigger(target_s: float, signals: Signals) -> Trigger:
    """Where no request came nothing can have been late: only then is an unknown quantile 0."""
    value = None if signals.p95_s is None else signals.p95_s.value
    if value is None and signals.rps is not None and signals.rps.value == 0 and not work_waits(signals):
        value = 0.0
    micro = None if value is None else _milli(value * 1000)
    metric = ObjectMetric("p95", micro, target_value_milli=max(1, _milli(target_s * 1000)))
    return Trigger("p95", metric, value, target_s)


def _milli(amount: float) -> int:
    """Thousandths, rounded up as Kubernetes' quantities are, but for the noise of doubles."""
    return math.ceil(round(amount * 1000, 3))


def demand_of(
    triggers: Sequence[Trigger], windows: Sequence[CronWindow], pods: Sequence[Pod], spec: HpaSpec, current: int,
    now: float,
) -> Demand:  # fmt: skip
    """What all triggers ask for now, by the rules of several metrics: the largest; with some failing no less than
    `current`; with all failing nothing. No triggers at all ask for 0."""
    outcomes = [propose(trigger.metric, pods, current, current, spec, now) for trigger in triggers]
    proposals = [_proposal(trigger, outcome) for trigger, outcome in zip(triggers, outcomes, strict=True)]
    for window in windows:
        if is_open(window, now):
            outcomes.append(MetricOutcome("cron", window.replicas))
            proposals.append(Proposal("cron", window.replicas))
    largest = combine(outcomes, current)
    leading = max(
        (index for index, proposal in enumerate(proposals) if proposal.count is not None),
        key=lambda index: proposals[index].count or 0,
        default=None,
    )
    error = "; ".join(f"{proposal.trigger}: {proposal.error}" for proposal in proposals if proposal.error)
    count = None if largest.replicas is None else max(largest.replicas, 0)
    return Demand(count, tuple(proposals), leading, error)


def _proposal(trigger: Trigger, outcome: MetricOutcome) -> Proposal:
    if outcome.replicas is None:
        return Proposal(trigger.name, None, trigger.value, trigger.target, _why(trigger, outcome.error))
    value = trigger.value if outcome.utilization is None else float(outcome.utilization)
    return Proposal(trigger.name, outcome.replicas, value, trigger.target)


def _why(trigger: Trigger, error: str) -> str:
    """The arithmetic's error in words that fit an agent."""
    if not isinstance(trigger.metric, ResourceMetric):
        return "not known yet"
    if not trigger.metric.requests_milli and "request" in error:
        return f"the agent has no resources.{trigger.name}, so there is nothing to take percent of"
    return "no replica's use is known yet" if trigger.metric.samples is None else error


def is_open(window: CronWindow, now: float) -> bool:
    """Whether the window's end comes before its next start. Raises as `next_fire`."""
    start, end = _edges(window, now)
    return end is not None and (start is None or end < start)


def next_edge(
    windows: Sequence[CronWindow], replicas: Sequence[Replica], scale: Scale, spec: HpaSpec, now: float
) -> float | None:
    """The next instant at which the proposals could change on equal samples: a window opens or closes, or a replica
    leaves the time after its start in which its use of the CPU counts with reserve."""
    edges = [edge for window in windows for edge in _edges(window, now)]
    if scale.target.cpu is not None:
        edges += [
            replica.started_at + spec.cpu_initialization_period_s
            for replica in replicas
            if replica.started_at is not None and replica.phase is not Phase.STOPPING
        ]
    return min((edge for edge in edges if edge is not None and edge > now), default=None)


def _edges(window: CronWindow, now: float) -> tuple[float | None, float | None]:
    return next_fire(window.start, window.time_zone, now), next_fire(window.end, window.time_zone, now)
