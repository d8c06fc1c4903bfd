"""Windows over the gateways' cumulative counts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.routing import LATENCY_BOUNDS_MS, Traffic
from shoal.core.traffic import Series, concurrency, quantile_s, rate


def latencies(*milliseconds: float) -> tuple[int, ...]:
    return tuple(sum(1 for each in milliseconds if each <= bound) for bound in LATENCY_BOUNDS_MS)


def series(*observations: tuple[float, Traffic]) -> Series:
    made = Series()
    for at, traffic in observations:
        made = made.extended(at, traffic)
    return made


def test_concurrency_is_the_mean_by_time() -> None:
    """A value holds until the next one: half a second of 10 and half of 30 is 20."""
    seen = series((0.0, Traffic(active=10)), (0.5, Traffic(active=30)))
    reading = concurrency(seen, 1.0)
    assert reading is not None and reading.value == pytest.approx(20.0)


def test_held_requests_count_as_concurrency() -> None:
    """A request that waits for a first replica is demand like any other."""
    reading = concurrency(series((0.0, Traffic(active=0, held=3))), 0.5)
    assert reading is not None and reading.value == 3.0


def test_rate_counts_what_came_in_the_window() -> None:
    """Requests before the window are not in it."""
    seen = series((0.0, Traffic(requests=100)), (2.0, Traffic(requests=500)), (4.0, Traffic(requests=540)))
    reading = rate(seen, 4.0)
    assert reading is not None and reading.value == pytest.approx(20.0)


def test_restarted_envoy_gives_no_negative_rate() -> None:
    """Counts that begin anew go on where the old ones ended."""
    seen = series((0.0, Traffic(requests=1000)), (1.0, Traffic(requests=1010)), (2.0, Traffic(requests=6)))
    reading = rate(seen, 2.0)
    assert reading is not None and reading.value == pytest.approx(8.0)


def test_quantile_is_within_its_bucket() -> None:
    """95 fast requests and 5 slow ones: the 95th is fast, the 97th is slow."""
    before, after = Traffic(), Traffic(requests=100, latency_counts=latencies(*[12.0] * 95, *[480.0] * 5))
    seen = series((0.0, before), (1.0, after))
    p95, p97 = quantile_s(seen, 1.0), quantile_s(seen, 1.0, q=0.97)
    assert p95 is not None and 0.010 <= p95.value <= 0.015
    assert p97 is not None and 0.400 <= p97.value <= 0.500


def test_nothing_is_known_without_an_observation() -> None:
    """No observation is not the same as no traffic."""
    assert concurrency(Series(), 1.0) is None
    assert rate(Series(), 1.0) is None
    assert quantile_s(series((0.0, Traffic())), 1.0) is None


def test_quiet_when_no_window_can_change() -> None:
    """After the longest window without a new observation nothing moves by itself."""
    seen = series((0.0, Traffic(active=4)))
    assert not seen.quiet_after(4.9) and seen.quiet_after(5.0)


@given(st.lists(st.tuples(st.floats(0.01, 2.0), st.integers(0, 100)), min_size=2, max_size=40))
def test_concurrency_lies_between_the_extremes(steps) -> None:
    """A mean is never outside of what was seen, and old points are dropped without changing it."""
    at, seen, values = 0.0, Series(), []
    for gap, active in steps:
        at += gap
        seen = seen.extended(at, Traffic(active=active))
        values.append(active)
    reading = concurrency(seen, at + 0.1)
    assert reading is not None and min(values) - 1e-9 <= reading.value <= max(values) + 1e-9
    assert all(a.at < b.at for a, b in pairwise(seen.points))
