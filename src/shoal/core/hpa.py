"""Kubernetes' horizontal pod autoscaler (1.34) as one function of values: `recommend`.

    outcome = recommend(spec, pods, metrics, history, now, current=3)
    if outcome.rescale:
        ...  # set outcome.replicas
        history = record_change(spec, outcome.history, outcome.current, outcome.replicas, now)
    else:
        history = outcome.history

It is `reconcileAutoscaler` of `pkg/controller/podautoscaler/horizontal.go` and all below it, to the last bit: same
truncations, same order of operations in doubles, same int32 and int64 wrapping (as on amd64), same strict and
inclusive comparisons of time. Every value it takes and gives is in `hpa_types`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shoal.core.hpa_behavior import add_change, down_rules, normalize_plain, normalize_with_behavior, up_rules
from shoal.core.hpa_numbers import int32
from shoal.core.hpa_replicas import propose
from shoal.core.hpa_types import (
    History,
    HpaSpec,
    Metric,
    MetricOutcome,
    ObjectMetric,
    Outcome,
    Pod,
    PodsMetric,
    Remembered,
    ResourceMetric,
)


def recommend(
    spec: HpaSpec,
    pods: Sequence[Pod],
    metrics: Sequence[Metric],
    history: History,
    now: float,
    *,
    current: int,
    status_replicas: int | None = None,
) -> Outcome:
    """One pass of the autoscaler.

    `pods` are all that the target selects; `metrics` carry their targets and their values; `current` is the count that
    the target is set to, `status_replicas` the one that its status reports (the same unless given). `now` and all
    instants are seconds since one origin. Raises nothing: what can't be computed is in the outcome.
    """
    if not history.recommendations:
        history = replace(history, recommendations=(Remembered(current, now),))
    if current == 0 and spec.min_replicas != 0:
        return Outcome(0, 0, rescale=False, history=history, active="ScalingDisabled")
    if current > spec.max_replicas:
        reason = "Current number of replicas above Spec.MaxReplicas"
        return Outcome(current, spec.max_replicas, rescale=True, history=history, reason=reason)
    if current < spec.min_replicas:
        reason = "Current number of replicas below Spec.MinReplicas"
        return Outcome(current, spec.min_replicas, rescale=True, history=history, reason=reason)

    status = current if status_replicas is None else status_replicas
    outcomes = tuple(propose(metric, pods, current, status, spec, now) for metric in metrics)
    largest = combine(outcomes, current)
    if largest.replicas is None:
        return Outcome(
            current, current, rescale=False, history=history, metrics=outcomes, error=largest.error,
            active=_failure_reason(metrics, outcomes),
        )  # fmt: skip
    return _normalized(spec, largest, outcomes, current, history, now)


def record_change(spec: HpaSpec, history: History, before: int, after: int, now: float) -> History:
    """The history once the count has been changed (`storeScaleEvent`). Without `behavior` nothing is kept of it."""
    if spec.behavior is None:
        return history
    if after > before:
        policies = up_rules(spec.behavior.scale_up).policies
        return replace(history, ups=add_change(history.ups, int32(after - before), policies, now))
    policies = down_rules(spec.behavior.scale_down, spec.downscale_stabilization_s).policies
    return replace(history, downs=add_change(history.downs, int32(before - after), policies, now))


@dataclass(frozen=True, slots=True)
class Combined:
    """What all metrics together ask for, and the name of the one that asks for most. `None`: they can't tell."""

    replicas: int | None
    metric: str = ""
    error: str = ""


def combine(outcomes: Sequence[MetricOutcome], current: int) -> Combined:
    """The largest valid proposal (`computeReplicasForMetrics`).

    With some metrics failing it counts only if it is no scale-down; with all failing there is none. No metrics at all
    ask for 0.
    """
    largest, metric = 0, ""
    for outcome in outcomes:
        if outcome.replicas is not None and (largest == 0 or outcome.replicas > largest):
            largest, metric = outcome.replicas, outcome.name
    errors = [outcome.error for outcome in outcomes if outcome.replicas is None]
    if not errors:
        return Combined(largest, metric)
    error = f"invalid metrics ({len(errors)} invalid out of {len(outcomes)}), first error is: {errors[0]}"
    if len(errors) == len(outcomes) or largest < current:
        return Combined(None, error=error)
    return Combined(largest, metric, error)


def _normalized(
    spec: HpaSpec, combined: Combined, outcomes: tuple[MetricOutcome, ...], current: int, history: History, now: float
) -> Outcome:
    proposal = combined.replicas or 0
    desired = max(proposal, 0)
    reason = ""
    if desired > current:
        reason = f"{combined.metric} above target"
    elif desired < current:
        reason = "All metrics below target"
    if spec.behavior is None:
        normalized = normalize_plain(spec, desired, current, history, now)
    else:
        up = up_rules(spec.behavior.scale_up)
        down = down_rules(spec.behavior.scale_down, spec.downscale_stabilization_s)
        normalized = normalize_with_behavior(spec, up, down, desired, current, history, now)
    return Outcome(
        current,
        normalized.replicas,
        rescale=normalized.replicas != current,
        history=replace(history, recommendations=normalized.recommendations),
        reason=reason,
        proposal=proposal,
        metrics=outcomes,
        active="ValidMetricFound" if outcomes else "",
        stabilized=normalized.stabilized,
        limited=normalized.limited,
        error=combined.error,
    )


def _failure_reason(metrics: Sequence[Metric], outcomes: Sequence[MetricOutcome]) -> str:
    first = next(metric for metric, outcome in zip(metrics, outcomes, strict=True) if outcome.replicas is None)
    if isinstance(first, ResourceMetric):
        return "FailedGetContainerResourceMetric" if first.container else "FailedGetResourceMetric"
    if isinstance(first, PodsMetric):
        return "FailedGetPodsMetric"
    return "FailedGetObjectMetric" if isinstance(first, ObjectMetric) else "FailedGetExternalMetric"
