"""How many replicas each metric asks for: `replica_calculator.go` and `metrics/utilization.go` of Kubernetes 1.34.

The order of operations is theirs: utilisation is cut to whole percent before it is divided by the target, averages to
milli-units, and a ratio of doubles is multiplied by a count before it is rounded up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shoal.core.hpa_numbers import (
    MAX_INT32,
    MAX_INT64,
    ceil_to_int32,
    ceil_to_int64,
    divide,
    int32,
    int64,
    nanoseconds,
    quotient,
)
from shoal.core.hpa_types import (
    ExternalMetric,
    HpaSpec,
    Metric,
    MetricOutcome,
    ObjectMetric,
    Pod,
    PodsMetric,
    ResourceMetric,
    Sample,
)


class InvalidMetric(Exception):
    """A metric can't be computed; the message says why. Never leaves `propose`."""


class Tolerances(NamedTuple):
    """How far the ratio of value to target may be from 1 without a change, down and up."""

    down: float
    up: float

    def holds(self, ratio: float) -> bool:
        """Inclusive on both sides, in doubles."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class PodGroups:
    """Pods by how they count: `ready` is a number, the others are names."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def tolerances_of(spec: HpaSpec) -> Tolerances:
    """Each direction's own tolerance where `behavior` gives one, else the controller's."""
    if spec.behavior is None:
        return Tolerances(spec.tolerance, spec.tolerance)
    down, up = spec.behavior.scale_down.tolerance, spec.behavior.scale_up.tolerance
    return Tolerances(spec.tolerance if down is None else down, spec.tolerance if up is None else up)


def group_pods(
    pods: Sequence[Pod], samples: Mapping[str, Sample], resource: str, spec: HpaSpec, now: float
) -> PodGroups:
    """Sort pods as `groupPods` does. Readiness matters for `resource` "cpu" alone."""
    ready = 0
    unready: set[str] = set()
    missing: set[str] = set()
    ignored: set[str] = set()
    for pod in pods:
        if pod.deleting or pod.phase == "Failed":
            ignored.add(pod.name)
        elif pod.phase == "Pending":
            unready.add(pod.name)
        elif pod.name not in samples:
            missing.add(pod.name)
        elif resource == "cpu" and _cpu_not_ready(pod, samples[pod.name], spec, now):
            unready.add(pod.name)
        else:
            ready += 1
    return PodGroups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _cpu_not_ready(pod: Pod, sample: Sample, spec: HpaSpec, now: float) -> bool:
    if pod.ready is None or pod.started_at is None:
        return True
    started_ns, changed_ns = nanoseconds(pod.started_at), nanoseconds(pod.ready_changed_at)
    if started_ns + nanoseconds(spec.cpu_initialization_period_s) > nanoseconds(now):
        covers_the_start_only = nanoseconds(sample.at) < changed_ns + nanoseconds(sample.window_s)
        return pod.ready == "False" or covers_the_start_only
    never_was_ready = started_ns + nanoseconds(spec.initial_readiness_delay_s) > changed_ns
    return pod.ready == "False" and never_was_ready


def propose(
    metric: Metric, pods: Sequence[Pod], current: int, status_replicas: int, spec: HpaSpec, now: float
) -> MetricOutcome:
    """What one metric asks for. `current` is the target's wanted count, `status_replicas` the one its status reports.

    A metric that can't be computed comes back without `replicas` and with its `error`.
    """
    tolerances = tolerances_of(spec)
    try:
        if isinstance(metric, ResourceMetric):
            if metric.target_average_milli is None:
                return _utilization(metric, pods, current, tolerances, spec, now)
            return _average(
                name_of(metric), metric.samples, metric.target_average_milli, metric.resource, pods, current,
                tolerances, spec, now,
            )  # fmt: skip
        if isinstance(metric, PodsMetric):
            return _average(
                name_of(metric), metric.samples, metric.target_average_milli, "", pods, current, tolerances, spec, now
            )
        if isinstance(metric, ObjectMetric):
            return _object(metric, pods, current, status_replicas, tolerances)
        return _external(metric, pods, current, status_replicas, tolerances)
    except InvalidMetric as error:
        return MetricOutcome(name=name_of(metric), error=str(error))


def name_of(metric: Metric) -> str:
    """The metric in the words of Kubernetes' events."""
    if isinstance(metric, ResourceMetric):
        if metric.target_average_milli is not None:
            return f"{metric.resource} resource"
        return (
            f"{metric.resource} {'container ' if metric.container else ''}resource utilization (percentage of request)"
        )
    if isinstance(metric, PodsMetric):
        return f"pods metric {metric.name}"
    if isinstance(metric, ObjectMetric) and metric.target_value_milli is not None:
        return f"{metric.kind} metric {metric.name}"
    return f"external metric {metric.name}"


def _usable_samples(
    samples: Mapping[str, Sample] | None, pods: Sequence[Pod], resource: str, spec: HpaSpec, now: float
) -> tuple[dict[str, int], PodGroups]:
    """Values by pod, without those of ignored and unready pods, and the groups. Pods not listed keep theirs."""
    if samples is None:
        raise InvalidMetric("unable to get metrics")
    if not pods:
        raise InvalidMetric("no pods returned by selector while calculating replica count")
    groups = group_pods(pods, samples, resource, spec, now)
    dropped = groups.ignored | groups.unready
    values = {name: sample.value_milli for name, sample in samples.items() if name not in dropped}
    if not values:
        raise InvalidMetric("did not receive metrics for targeted pods (pods might be unready)")
    return values, groups


def _utilization(
    metric: ResourceMetric, pods: Sequence[Pod], current: int, tolerances: Tolerances, spec: HpaSpec, now: float
) -> MetricOutcome:
    """`GetResourceReplicas`: usage as a percentage of the request."""
    target = metric.target_utilization
    if target is None:
        raise InvalidMetric("neither an average utilization target nor an average value target was set")
    values, groups = _usable_samples(metric.samples, pods, metric.resource, spec, now)
    for pod in pods:
        if pod.name not in metric.requests_milli:
            raise InvalidMetric(f"missing request for {metric.resource} of pod {pod.name}")
    requests = {pod.name: metric.requests_milli[pod.name] for pod in pods}

    ratio, utilization, average = utilization_ratio(values, requests, target)
    fallback = max(100, target)
    fill = {name: quotient(int64(requests[name] * fallback), 100) for name in groups.missing}
    replicas = _scaled(
        ratio, values, groups, fill, current, tolerances, lambda filled: utilization_ratio(filled, requests, target)[0]
    )
    return MetricOutcome(name_of(metric), replicas, utilization=utilization, average_milli=average)


def _average(
    name: str, samples: Mapping[str, Sample] | None, target_milli: int, resource: str, pods: Sequence[Pod],
    current: int, tolerances: Tolerances, spec: HpaSpec, now: float,
) -> MetricOutcome:  # fmt: skip
    """`calcPlainMetricReplicas`: the mean of what pods report."""
    values, groups = _usable_samples(samples, pods, resource, spec, now)
    ratio, average = average_ratio(values, target_milli)
    fill = dict.fromkeys(groups.missing, target_milli)
    replicas = _scaled(
        ratio, values, groups, fill, current, tolerances, lambda filled: average_ratio(filled, target_milli)[0]
    )
    return MetricOutcome(name, replicas, average_milli=average)


def utilization_ratio(
    values_milli: Mapping[str, int], requests_milli: Mapping[str, int], target_percent: int
) -> tuple[float, int, int]:
    """Utilisation by target, utilisation in whole percent, mean usage in milli-units (`GetResourceUtilizationRatio`).

    Values of pods without a request are left out.
    """
    usage = requested = entries = 0
    for name, value in values_milli.items():
        if name in requests_milli:
            usage += value
            requested += requests_milli[name]
            entries += 1
    usage, requested = int64(usage), int64(requested)
    if requested == 0:
        raise InvalidMetric("no metrics returned matched known pods")
    percent = int32(quotient(int64(usage * 100), requested))
    return divide(float(percent), float(target_percent)), percent, quotient(usage, entries)


def average_ratio(values_milli: Mapping[str, int], target_milli: int) -> tuple[float, int]:
    """Mean by target, and the mean in whole milli-units (`GetMetricUsageRatio`). `values_milli` is not empty."""
    mean = quotient(int64(sum(values_milli.values())), len(values_milli))
    return divide(float(mean), float(target_milli)), mean


def _scaled(
    ratio: float, values: Mapping[str, int], groups: PodGroups, fill: Mapping[str, int], current: int,
    tolerances: Tolerances, ratio_of: Callable[[Mapping[str, int]], float],
) -> int:  # fmt: skip
    """The count for a ratio, guessing for pods that tell nothing so that the change is never larger than it must be.

    `fill` is what a missing pod counts as on the way down; on the way up missing and unready ones count as 0.
    """
    up_with_unready = bool(groups.unready) and ratio > 1.0
    if not up_with_unready and not groups.missing:
        return current if tolerances.holds(ratio) else ceil_to_int32(ratio * float(groups.ready))

    filled = dict(values)
    if ratio < 1.0:
        filled.update(fill)
    elif ratio > 1.0:
        filled.update(dict.fromkeys(groups.missing, 0))
    if up_with_unready:
        filled.update(dict.fromkeys(groups.unready, 0))

    guessed = ratio_of(filled)
    if tolerances.holds(guessed) or (ratio < 1.0 < guessed) or (guessed < 1.0 < ratio):
        return current
    replicas = ceil_to_int32(guessed * float(len(filled)))
    if (guessed < 1.0 and replicas > current) or (guessed > 1.0 and replicas < current):
        return current  # the number of samples, not the load, would turn the direction
    return replicas


def _object(
    metric: ObjectMetric, pods: Sequence[Pod], current: int, status_replicas: int, tolerances: Tolerances
) -> MetricOutcome:
    """`GetObjectMetricReplicas` and `GetObjectPerPodMetricReplicas`."""
    usage = metric.value_milli
    if usage is None:
        raise InvalidMetric(f"unable to get metric {metric.name}")
    if metric.target_value_milli is not None:
        ratio = divide(float(usage), float(metric.target_value_milli))
        return MetricOutcome(name_of(metric), _by_total(ratio, pods, current, tolerances), value_milli=usage)
    if metric.target_average_milli is None:
        raise InvalidMetric("neither a value target nor an average value target was set")
    target = float(metric.target_average_milli)
    replicas = status_replicas
    if not tolerances.holds(divide(float(usage), target * float(status_replicas))):
        replicas = ceil_to_int32(divide(float(usage), target))
    shown = ceil_to_int64(divide(float(usage), float(status_replicas)))
    return MetricOutcome(name_of(metric), replicas, average_milli=shown)


def _external(
    metric: ExternalMetric, pods: Sequence[Pod], current: int, status_replicas: int, tolerances: Tolerances
) -> MetricOutcome:
    """`GetExternalMetricReplicas` and `GetExternalPerPodMetricReplicas`."""
    if metric.values_milli is None:
        raise InvalidMetric(f"unable to get external metric {metric.name}")
    if metric.target_average_milli is not None:
        replicas, shown = _external_average(
            metric.values_milli, float(metric.target_average_milli), status_replicas, tolerances
        )
        return MetricOutcome(name_of(metric), replicas, average_milli=shown)
    if metric.target_value_milli is None:
        raise InvalidMetric("neither a value target nor an average value target was set")
    usage = int64(sum(metric.values_milli))
    ratio = divide(float(usage), float(metric.target_value_milli))
    return MetricOutcome(name_of(metric), _by_total(ratio, pods, current, tolerances), value_milli=usage)


def _external_average(
    values_milli: Sequence[int], target_milli: float, status_replicas: int, tolerances: Tolerances
) -> tuple[int, int]:
    """The count, capped at the greatest int32, and the average to report."""
    usage = _sum_until_overflow(values_milli)
    replicas = status_replicas
    if not tolerances.holds(divide(float(usage), target_milli * float(status_replicas))):
        wanted = divide(float(usage), target_milli)
        replicas = MAX_INT32 if wanted > MAX_INT32 else ceil_to_int32(wanted)
    if float(usage) >= float(MAX_INT64):
        return replicas, MAX_INT64
    return replicas, ceil_to_int64(divide(float(usage), float(status_replicas)))


def _sum_until_overflow(values: Sequence[int]) -> int:
    """A negative sum, on the way, is taken for an overflow and ends it at the greatest int64."""
    usage = 0
    for value in values:
        usage = int64(usage + value)
        if usage < 0:
            return MAX_INT64
    return usage


def _by_total(ratio: float, pods: Sequence[Pod], current: int, tolerances: Tolerances) -> int:
    """`getUsageRatioReplicaCount`: the ratio times the pods that run and are ready, deleting ones included; from 0
    the ratio itself."""
    if current == 0:
        return ceil_to_int32(ratio)
    if tolerances.holds(ratio):
        return current
    if not pods:
        raise InvalidMetric("no pods returned by selector while calculating replica count")
    ready = sum(1 for pod in pods if pod.phase == "Running" and pod.ready == "True")
    return ceil_to_int32(ratio * float(ready))
