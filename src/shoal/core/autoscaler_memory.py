"""What of the past an autoscaler has to remember: only what can still change an answer, however often it is asked."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.core.decision import Recommendation, ScalingHistory
from shoal.core.hpa_behavior import Direction
from shoal.core.hpa_numbers import nanoseconds
from shoal.core.hpa_types import Change, History, Remembered


def to_hpa(history: ScalingHistory) -> History:
    """The same in the arithmetic's words."""
    return History(
        tuple(Remembered(past.count, past.at) for past in history.recommendations),
        tuple(Change(event.change, event.at) for event in history.ups),
        tuple(Change(event.change, event.at) for event in history.downs),
    )


def longest_period_s(up: Direction, down: Direction) -> float:
    """How long a scale event can count: policies of both directions look at events of both."""
    return max((policy.period_s for policy in (*up.policies, *down.policies)), default=0.0)


def remember(
    past: Sequence[Recommendation], new: Recommendation, up_window_s: float, down_window_s: float
) -> tuple[Recommendation, ...]:
    """The recommendations that can still be the least of the up window or the largest of the down window.

    One that is older than another, and neither smaller nor larger, is outlived by it in both windows.
    """
    now_ns = nanoseconds(new.at)
    up_cutoff_ns, down_cutoff_ns = now_ns - nanoseconds(up_window_s), now_ns - nanoseconds(down_window_s)
    kept = [new]
    least = largest = new.count
    for old in reversed(past):
        at_ns = nanoseconds(old.at)
        lowers = old.count < least and at_ns > up_cutoff_ns
        raises = old.count > largest and at_ns > down_cutoff_ns
        if lowers or raises:
            kept.append(old)
            least, largest = min(least, old.count), max(largest, old.count)
    return tuple(reversed(kept))
