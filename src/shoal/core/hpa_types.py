"""The values of Kubernetes' horizontal pod autoscaler: what it is told, what it remembers, what it answers.

Counts are replicas (int32 in Kubernetes). Amounts named `_milli` are thousandths of the metric's unit, as the
autoscaler itself counts: 500 is half a core, 1000 is one byte, one request, one task.
Instants are seconds since any one origin, durations are seconds; see `hpa_numbers.nanoseconds`
for how exactly they are taken (where nanoseconds matter, an origin not far away keeps them). Words in capitals are
those of the API (`autoscaling/v2`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PodPhase = Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]
ConditionStatus = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that the scale target's selector matches.

    `deleting`: it has a deletion timestamp. `ready` is the status of its Ready condition, `None` where it has no such
    condition; `ready_changed_at` is that condition's last transition (`None`: never set).
    """

    name: str
    phase: PodPhase = "Running"
    deleting: bool = False
    started_at: float | None = None
    ready: ConditionStatus | None = None
    ready_changed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One pod's value of a metric, taken at `at` over the `window_s` before.

    Of a resource it is the sum over the pod's containers, each in whole milli-units; a pod of which one container has
    no value has no sample.
    """

    value_milli: int
    at: float = 0.0
    window_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ResourceMetric:
    """`type: Resource`, or `ContainerResource` where `container` is given; one of the targets is set.

    `samples` is by pod name, a pod without one is left out; `None` (or empty) where the metrics API failed.
    `requests_milli` is by pod name and needed for utilisation alone: the sum over the pod's containers (or the one
    container; 0 where the pod has no such container). A listed pod that is left out has no request, which fails the
    metric. `target_average_milli` wins where both targets are given.
    """

    resource: str
    samples: Mapping[str, Sample] | None
    target_utilization: int | None = None
    target_average_milli: int | None = None
    requests_milli: Mapping[str, int] = field(default_factory=dict[str, int])
    container: str = ""


@dataclass(frozen=True, slots=True)
class PodsMetric:
    """`type: Pods`: a value of each pod and the average that it should have. `samples` as with `ResourceMetric`."""

    name: str
    samples: Mapping[str, Sample] | None
    target_average_milli: int


@dataclass(frozen=True, slots=True)
class ObjectMetric:
    """`type: Object`: one value of one object; `None` where the metrics API failed. One of the targets is set;
    `target_value_milli` wins."""

    name: str
    value_milli: int | None
    target_value_milli: int | None = None
    target_average_milli: int | None = None
    kind: str = "Service"


@dataclass(frozen=True, slots=True)
class ExternalMetric:
    """`type: External`: the values of all matching series, summed in this order; `None` where the metrics API failed.

    One of the targets is set; `target_average_milli` wins. No values sum to 0 (Kubernetes' own client calls an empty
    answer a failure before it comes here: then pass `None`).
    """

    name: str
    values_milli: tuple[int, ...] | None
    target_value_milli: int | None = None
    target_average_milli: int | None = None


Metric = ResourceMetric | PodsMetric | ObjectMetric | ExternalMetric


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `value` pods, or percent of the count at the period's start, within `period_s`."""

    type: Literal["Pods", "Percent"]
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction of `behavior`. `None` means that direction's default, as the API server fills it in:

    up: window 0, {4 Pods in 15 s, 100 Percent in 15 s}; down: window `HpaSpec.downscale_stabilization_s`,
    {100 Percent in 15 s}; tolerance `HpaSpec.tolerance`. Given policies replace all defaults.
    """

    stabilization_window_s: float | None = None
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: tuple[Policy, ...] | None = None
    tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class Behavior:
    """`spec.behavior`: with it, rates and both windows apply; without (`None` in `HpaSpec`) the older rules do."""

    scale_up: Rules = Rules()
    scale_down: Rules = Rules()


@dataclass(frozen=True, slots=True)
class HpaSpec:
    """The autoscaler's settings. Those with defaults below `behavior` are the controller's flags.

    A direction's tolerance in `behavior` always counts here; Kubernetes 1.34 heeds it behind the feature gate
    HPAConfigurableTolerance.
    """

    max_replicas: int
    min_replicas: int = 1
    behavior: Behavior | None = None
    tolerance: float = 0.1
    downscale_stabilization_s: float = 300
    cpu_initialization_period_s: float = 300
    initial_readiness_delay_s: float = 30


@dataclass(frozen=True, slots=True)
class Remembered:
    """An unstabilised recommendation."""

    replicas: int
    at: float


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was made, by `replicas` (not negative). `outdated` marks one whose place may be reused."""

    replicas: int
    at: float
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """What the controller remembers of one autoscaler, in its order. Empty for a new one."""

    recommendations: tuple[Remembered, ...] = ()
    ups: tuple[Change, ...] = ()
    downs: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricOutcome:
    """What one metric asks for: `replicas`, or `None` with the `error`; the rest is what the status reports."""

    name: str
    replicas: int | None = None
    utilization: int | None = None
    average_milli: int | None = None
    value_milli: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of one pass.

    `replicas` is the count to set, equal to `current` where `rescale` is false. `proposal` is what the metrics asked
    for before windows, rates and bounds; `None` where they were not asked or failed. `reason` is in the words of
    Kubernetes' event. `active`, `stabilized` and `limited` are the reasons of the conditions ScalingActive,
    AbleToScale (before a rescale) and ScalingLimited, empty where the pass set none. `error` may come with an answer:
    some metrics failed, the others were enough.

    `history` holds the recommendation of this pass; once the change is made, `record_change` adds the scale event.
    """

    current: int
    replicas: int
    rescale: bool
    history: History
    reason: str = ""
    proposal: int | None = None
    metrics: tuple[MetricOutcome, ...] = ()
    active: str = ""
    stabilized: str = ""
    limited: str = ""
    error: str = ""
