"""From what the metrics ask for to the count that is set: windows, rates and bounds of `horizontal.go` (1.34).

Without `behavior`: the largest recommendation of the last minutes, at most doubled (or 4), then the bounds. With it:
the current count is pulled into [least of the up window, largest of the down window], then rates and bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from shoal.core.hpa_numbers import MAX_INT32, MIN_INT32, ceil_to_int32, int32, nanoseconds, truncate_to_int32
from shoal.core.hpa_types import Change, History, HpaSpec, Policy, Remembered, Rules

_DEFAULT_UP = (Policy("Pods", 4, 15), Policy("Percent", 100, 15))
_DEFAULT_DOWN = (Policy("Percent", 100, 15),)


class Direction(NamedTuple):
    """A direction's rules with nothing left open."""

    window_s: float
    select_policy: str
    policies: tuple[Policy, ...]


@dataclass(frozen=True, slots=True)
class Normalized:
    """A count within windows, rates and bounds; the condition reasons say what kept it."""

    replicas: int
    stabilized: str
    limited: str
    recommendations: tuple[Remembered, ...]


def up_rules(rules: Rules) -> Direction:
    """Scale-up rules with the API server's defaults filled in."""
    window_s = 0 if rules.stabilization_window_s is None else rules.stabilization_window_s
    return Direction(window_s, rules.select_policy, _DEFAULT_UP if rules.policies is None else rules.policies)


def down_rules(rules: Rules, downscale_stabilization_s: float) -> Direction:
    """Scale-down rules with defaults filled in; the window's is the controller's flag, in whole seconds."""
    window_s = rules.stabilization_window_s
    if window_s is None:
        window_s = int(downscale_stabilization_s)
    return Direction(window_s, rules.select_policy, _DEFAULT_DOWN if rules.policies is None else rules.policies)


def normalize_plain(spec: HpaSpec, desired: int, current: int, history: History, now: float) -> Normalized:
    """`normalizeDesiredReplicas`: for an autoscaler without `behavior`."""
    stabilized, recommendations = stabilize_plain(history.recommendations, desired, spec.downscale_stabilization_s, now)
    replicas, limited = limit_plain(current, stabilized, spec.min_replicas, spec.max_replicas)
    reason = "ReadyForNewScale" if stabilized == desired else "ScaleDownStabilized"
    return Normalized(replicas, reason, limited, recommendations)


def normalize_with_behavior(
    spec: HpaSpec, up: Direction, down: Direction, desired: int, current: int, history: History, now: float
) -> Normalized:
    """`normalizeDesiredReplicasWithBehaviors`."""
    stabilized, recommendations = stabilize(history.recommendations, desired, current, up.window_s, down.window_s, now)
    replicas, limited = limit_rate(spec, up, down, stabilized, current, history, now)
    if stabilized == desired:
        reason = "ReadyForNewScale"
    else:
        reason = "ScaleUpStabilized" if desired >= current else "ScaleDownStabilized"
    return Normalized(replicas, reason, limited, recommendations)


def stabilize_plain(
    recommendations: Sequence[Remembered], desired: int, window_s: float, now: float
) -> tuple[int, tuple[Remembered, ...]]:
    """The largest recommendation not older than the window, and what is remembered then (`stabilizeRecommendation`).

    The last one that is older gives its place to the new one.
    """
    cutoff_ns = nanoseconds(now) - nanoseconds(window_s)
    largest, old_index = desired, None
    for index, past in enumerate(recommendations):
        if nanoseconds(past.at) < cutoff_ns:
            old_index = index
        elif past.replicas > largest:
            largest = past.replicas
    return largest, _remember(recommendations, desired, now, old_index)


def stabilize(
    recommendations: Sequence[Remembered], desired: int, current: int, up_window_s: float, down_window_s: float,
    now: float,
) -> tuple[int, tuple[Remembered, ...]]:  # fmt: skip
    """The current count within the windows' limits, and what is remembered (`stabilizeRecommendationWithBehaviors`).

    A recommendation counts while it is younger than the window, so a window of 0 takes the new one alone.
    """
    now_ns = nanoseconds(now)
    up_cutoff_ns, down_cutoff_ns = now_ns - nanoseconds(up_window_s), now_ns - nanoseconds(down_window_s)
    least = largest = desired
    old_index = None
    for index, past in enumerate(recommendations):
        at_ns = nanoseconds(past.at)
        if at_ns > up_cutoff_ns:
            least = min(past.replicas, least)
        if at_ns > down_cutoff_ns:
            largest = max(past.replicas, largest)
        if at_ns < up_cutoff_ns and at_ns < down_cutoff_ns:
            old_index = index
    return min(max(current, least), largest), _remember(recommendations, desired, now, old_index)


def _remember(
    recommendations: Sequence[Remembered], desired: int, now: float, old_index: int | None
) -> tuple[Remembered, ...]:
    new = Remembered(desired, now)
    if old_index is None:
        return (*recommendations, new)
    return (*recommendations[:old_index], new, *recommendations[old_index + 1 :])


def limit_plain(current: int, desired: int, minimum: int, maximum: int) -> tuple[int, str]:
    """The bounds, and at most the double or 4 (`convertDesiredReplicasWithRules`). Gives ScalingLimited's reason."""
    up_limit = truncate_to_int32(max(2.0 * float(current), 4.0))
    allowed, reason = (up_limit, "ScaleUpLimit") if maximum > up_limit else (maximum, "TooManyReplicas")
    if desired < minimum:
        return minimum, "TooFewReplicas"
    if desired > allowed:
        return allowed, reason
    return desired, "DesiredWithinRange"


def limit_rate(
    spec: HpaSpec, up: Direction, down: Direction, desired: int, current: int, history: History, now: float
) -> tuple[int, str]:
    """Rates and bounds (`convertDesiredReplicasWithBehaviorRate`): the maximum going up, the minimum going down."""
    if desired > current:
        limit = max(scale_up_limit(up, current, history, now), current)
        allowed, reason = (
            (limit, "ScaleUpLimit") if spec.max_replicas > limit else (spec.max_replicas, "TooManyReplicas")
        )
        if desired > allowed:
            return allowed, reason
    elif desired < current:
        limit = min(scale_down_limit(down, current, history, now), current)
        allowed, reason = (
            (limit, "ScaleDownLimit") if spec.min_replicas < limit else (spec.min_replicas, "TooFewReplicas")
        )
        if desired < allowed:
            return allowed, reason
    return desired, "DesiredWithinRange"


def scale_up_limit(rules: Direction, current: int, history: History, now: float) -> int:
    """The most replicas that the policies allow now (`calculateScaleUpLimitWithScalingRules`)."""

    def proposed(policy: Policy, start: int) -> int:
        if policy.type == "Pods":
            return int32(start + policy.value)
        return ceil_to_int32(float(start) * (1 + float(policy.value) / 100))

    if rules.select_policy == "Min":
        return _limit(rules, current, history, now, proposed, MAX_INT32, min)
    return _limit(rules, current, history, now, proposed, MIN_INT32, max)


def scale_down_limit(rules: Direction, current: int, history: History, now: float) -> int:
    """The fewest replicas that the policies allow now (`calculateScaleDownLimitWithBehaviors`)."""

    def proposed(policy: Policy, start: int) -> int:
        if policy.type == "Pods":
            return int32(start - policy.value)
        return truncate_to_int32(float(start) * (1 - float(policy.value) / 100))

    if rules.select_policy == "Min":
        return _limit(rules, current, history, now, proposed, MIN_INT32, max)
    return _limit(rules, current, history, now, proposed, MAX_INT32, min)


def _limit(
    rules: Direction, current: int, history: History, now: float, proposed: Callable[[Policy, int], int],
    first: int, select: Callable[[int, int], int],
) -> int:  # fmt: skip
    if rules.select_policy == "Disabled":
        return current
    limit = first
    for policy in rules.policies:
        added = changed_within(history.ups, policy.period_s, now)
        removed = changed_within(history.downs, policy.period_s, now)
        limit = select(limit, proposed(policy, int32(current - added + removed)))
    return limit


def changed_within(changes: Sequence[Change], period_s: float, now: float) -> int:
    """Replicas changed in events younger than the period (`getReplicasChangePerPeriod`)."""
    cutoff_ns = nanoseconds(now) - nanoseconds(period_s)
    return int32(sum(change.replicas for change in changes if nanoseconds(change.at) > cutoff_ns))


def add_change(changes: Sequence[Change], replicas: int, policies: Sequence[Policy], now: float) -> tuple[Change, ...]:
    """The direction's events with a new one (`storeScaleEvent`).

    Those older than the longest period are marked; the last marked one gives its place to the new one.
    """
    longest_s = max((policy.period_s for policy in policies), default=0)
    cutoff_ns = nanoseconds(now) - nanoseconds(longest_s)
    marked = [
        change if change.outdated or nanoseconds(change.at) >= cutoff_ns else replace(change, outdated=True)
        for change in changes
    ]
    outdated = [index for index, change in enumerate(marked) if change.outdated]
    new = Change(int32(replicas), now)
    if outdated:
        marked[outdated[-1]] = new
    else:
        marked.append(new)
    return tuple(marked)
