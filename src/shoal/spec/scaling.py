"""What the file says of an agent's count: its bounds, what a replica should bear, and how fast the count follows.

The behaviour's names and defaults are HPA v2's (`autoscaling/v2`, HorizontalPodAutoscalerBehavior).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shoal.spec.block import Model
from shoal.spec.values import DurationS, Integer, Number, Percent


class ScalingPolicy(Model):
    """As in HPA v2: at most `value` replicas or percent within `period`."""

    type: Literal["pods", "percent"] = Field(description="What `value` counts: replicas, or percent of the replicas.")
    value: Integer = Field(gt=0, le=10**6, description="How much may be added or removed within `period`.")
    period_s: Annotated[DurationS, Field(gt=0, le=1800)] = Field(
        alias="period", description="The window that `value` holds for, at most 30 minutes."
    )


class ScalingRules(Model):
    """One direction of HPA v2's behaviour; what is not given is that direction's default."""

    stabilization_window_s: Annotated[DurationS, Field(le=3600)] | None = Field(
        default=None,
        alias="stabilization_window",
        description="How far back recommendations count: the most cautious one of the window wins; at most 1 hour.",
    )
    select_policy: Literal["max", "min", "disabled"] = Field(
        default="max", description="Which policy wins, the one that allows the most or the least; or no change at all."
    )
    policies: tuple[ScalingPolicy, ...] | None = Field(
        default=None, min_length=1, description="How fast the count may change."
    )
    tolerance: Annotated[Number, Field(ge=0, le=1)] | None = Field(
        default=None, description="How far off the target a measured value may be before anything happens; 0.1 is 10 %."
    )


class Behavior(Model):
    """HPA v2's behaviour, with its defaults: up at once (4 replicas or 100 % in 15 s), down after 300 s."""

    scale_up: ScalingRules = Field(default=ScalingRules(), description="How replicas are added.")
    scale_down: ScalingRules = Field(default=ScalingRules(), description="How replicas are removed.")


class Target(Model):
    """What a replica should bear. Several targets: the largest count wins."""

    cpu: Annotated[Percent, Field(gt=0)] | None = Field(
        default=None, description="CPU use in percent of `resources.cpu`, such as `70%`."
    )
    memory: Annotated[Percent, Field(gt=0)] | None = Field(
        default=None, description="Memory use in percent of `resources.memory`, such as `80%`."
    )
    concurrency: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="Requests in flight a replica."
    )
    rps: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(default=None, description="Requests a second a replica.")
    p95_s: Annotated[DurationS, Field(gt=0)] | None = Field(
        default=None, alias="p95", description="The time within which 95 % of the requests are answered."
    )
    queue_depth: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="Tasks waiting or being worked on a replica."
    )


class CronWindow(Model):
    """At least `replicas` between two cron times."""

    start: str = Field(description="The cron time at which the window opens.")
    end: str = Field(description="The cron time at which the window closes.")
    time_zone: str = Field(default="UTC", description="The time zone of both, such as `Europe/Berlin`.")
    replicas: Integer = Field(ge=0, le=10**6, description="The least number of replicas within the window.")


class Scale(Model):
    """How many replicas there are. `scale: 3` is short for `min` and `max` of 3."""

    shorthand: ClassVar[tuple[str, ...]] = ("min", "max")

    min: Integer = Field(default=1, ge=0, le=10**6, description="The least number of replicas.")
    max: Integer = Field(default=1, ge=1, le=10**6, description="The largest number of replicas.")
    target: Target = Field(default=Target(), description="What a replica should bear; the count follows from it.")
    cron: tuple[CronWindow, ...] = Field(default=(), description="Times at which more replicas are kept than `min`.")
    behavior: Behavior = Field(default=Behavior(), description="How fast the count follows.")
