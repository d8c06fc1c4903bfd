"""What the autoscaler says and remembers. `shoal.core.autoscaler` has the function:

    decide(agent: str, scale: Scale, resources: Resources, replicas: Sequence[Replica], current: int,
           signals: Signals, history: ScalingHistory, pin: Pin | None, now: float, held: Held | None = None
           ) -> tuple[Decision, ScalingHistory]

`current` is the wanted count now; `replicas` are those of the serving revisions. The history that it returns already
holds the recommendation; `record_scaling(history, scale, before, after, now)` adds the event once the change is made.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pin:
    """A count that a person set, until an epoch second or, with `None`, until released."""

    count: int
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one trigger asks for. `count` is `None` when it could not say; `error` tells why."""

    trigger: str
    count: int | None
    value: float | None = None
    target: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas, why, and when to ask again.

    `capped_by` names what kept the count from the proposal (`max`, `min`, `scale_up policy`, `stabilization`, `pin`,
    `owner` where somebody else sets it);
    `due_at` is the next epoch second at which the answer could change on equal samples, `None` if never.
    """

    agent: str
    at: float
    current: int
    count: int
    reason: str
    capped_by: str = ""
    due_at: float | None = None
    proposals: tuple[Proposal, ...] = ()


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An unstabilised count that was recommended at an epoch second."""

    at: float
    count: int


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """A change of count that was made: how many replicas more or less (always positive)."""

    at: float
    change: int


@dataclass(frozen=True, slots=True)
class ScalingHistory:
    """All that the autoscaler remembers of an agent. Empty for a new one; who takes over seeds it with the current
    count. Only what can still matter is kept, however often it is asked."""

    recommendations: tuple[Recommendation, ...] = ()
    ups: tuple[ScaleEvent, ...] = ()
    downs: tuple[ScaleEvent, ...] = ()
