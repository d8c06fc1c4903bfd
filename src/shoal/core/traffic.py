"""From the gateways' cumulative counts to what the autoscaler reads: means, rates and quantiles over short windows.

A `Series` is a step function: each point holds until the next. So an agent whose counts stand still needs no points,
and a mean is weighted by time, whatever the rhythm of the scrapes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from shoal.core.routing import LATENCY_BOUNDS_MS, Traffic
from shoal.core.signals import Reading

CONCURRENCY_WINDOW_S = 1.0  # short: the fast signal; stabilisation is the autoscaler's business
RATE_WINDOW_S = 2.0
QUANTILE_WINDOW_S = 5.0
LONGEST_WINDOW_S = QUANTILE_WINDOW_S


@dataclass(frozen=True, slots=True)
class Point:
    """An agent's counts, made monotone: `requests` and `latency_counts` go on where a restarted Envoy began anew."""

    at: float
    active: int
    held: int
    requests: int
    latency_counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """The points of the longest window, the newest last, and the counts that they were made from."""

    points: tuple[Point, ...] = ()
    last: Traffic = field(default_factory=Traffic)

    def extended(self, at: float, traffic: Traffic) -> Series:
        """With one more observation; points that no window reaches any more are dropped."""
        newest = self.points[-1] if self.points else Point(at, 0, 0, 0, ())
        restarted = traffic.requests < self.last.requests
        before = Traffic() if restarted else self.last
        if not self.points:  # what was counted before we looked is not traffic of now
            before = traffic
        point = Point(
            at=at,
            active=traffic.active,
            held=traffic.held,
            requests=newest.requests + traffic.requests - before.requests,
            latency_counts=_added(newest.latency_counts, traffic.latency_counts, before.latency_counts),
        )
        first = max(0, bisect_right(self.points, at - LONGEST_WINDOW_S, key=lambda p: p.at) - 1)
        return Series((*self.points[first:], point), traffic)

    def quiet_after(self, now: float) -> bool:
        """Whether no window of `now` or later can still change by itself."""
        return not self.points or self.points[-1].at <= now - LONGEST_WINDOW_S


def _added(total: tuple[int, ...], now: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    if now is before or not now:
        return total
    padded_total = total or (0,) * len(now)
    padded_before = before or (0,) * len(now)
    return tuple(t + n - b for t, n, b in zip(padded_total, now, padded_before, strict=True))


def concurrency(series: Series, now: float, window_s: float = CONCURRENCY_WINDOW_S) -> Reading | None:
    """Requests in flight and held, the mean by time over the window; `None` before the first observation."""
    points = series.points
    if not points:
        return None
    start = max(now - window_s, points[0].at)
    end = now
    if end <= start:
        return Reading(float(points[-1].active + points[-1].held), now)
    area = 0.0
    for point, following in zip(points, (*points[1:], None), strict=True):
        left = max(point.at, start)
        right = min(following.at, end) if following is not None else end
        if right > left:
            area += (point.active + point.held) * (right - left)
    return Reading(area / (end - start), now)


def rate(series: Series, now: float, window_s: float = RATE_WINDOW_S) -> Reading | None:
    """Requests a second over the window; `None` before there is a second observation."""
    before = _at(series.points, now - window_s)
    if before is None or len(series.points) < 2:
        return None
    elapsed = now - max(before.at, now - window_s)
    if elapsed <= 0:
        return None
    return Reading((series.points[-1].requests - before.requests) / elapsed, now)


def quantile_s(series: Series, now: float, q: float = 0.95, window_s: float = QUANTILE_WINDOW_S) -> Reading | None:
    """The q-quantile of latency in seconds over the window, interpolated within its bucket; `None` without requests.

    Above the last bound it is the last bound.
    """
    before = _at(series.points, now - window_s)
    if before is None:
        return None
    newest = series.points[-1].latency_counts
    oldest = before.latency_counts or (0,) * len(newest)
    if not newest:
        return None
    counts = [n - o for n, o in zip(newest, oldest, strict=True)]
    total = counts[-1]
    if total <= 0:
        return None
    wanted = q * total
    lower_bound_ms, lower_count = 0.0, 0
    for bound_ms, count in zip(LATENCY_BOUNDS_MS, counts, strict=True):
        if count >= wanted:
            share = (wanted - lower_count) / (count - lower_count)
            return Reading((lower_bound_ms + share * (bound_ms - lower_bound_ms)) / 1000, now)
        lower_bound_ms, lower_count = bound_ms, count
    return Reading(LATENCY_BOUNDS_MS[-1] / 1000, now)


def _at(points: Sequence[Point], at: float) -> Point | None:
    """The point in force at `at`, or the oldest where that reaches back further than we looked."""
    if not points:
        return None
    return points[max(0, bisect_right(points, at, key=lambda p: p.at) - 1)]
