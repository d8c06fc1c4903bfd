"""The autoscaler's arithmetic by example: each rule with the smallest case that shows it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_quantity import approximate_float, milli_value

from shoal.core.hpa import recommend, record_change
from shoal.core.hpa_numbers import MAX_INT32, MIN_INT32, ceil_to_int32, int32, int64, nanoseconds, quotient
from shoal.core.hpa_types import (
    Behavior,
    Change,
    ExternalMetric,
    History,
    HpaSpec,
    ObjectMetric,
    Outcome,
    Pod,
    PodsMetric,
    Policy,
    Remembered,
    ResourceMetric,
    Rules,
    Sample,
)

NOW = 1_700_000_000.0
SPEC = HpaSpec(max_replicas=1000, behavior=None)
FREE = HpaSpec(
    max_replicas=10_000,
    behavior=Behavior(
        Rules(0, policies=(Policy("Percent", 10_000, 15),)), Rules(0, policies=(Policy("Percent", 100, 15),))
    ),
)


def ready_pods(count: int) -> list[Pod]:
    return [Pod(f"p{i}", started_at=NOW - 3600, ready="True", ready_changed_at=NOW - 3500) for i in range(count)]


def cpu(pods: list[Pod], usage_milli: list[int], target: int, request_milli: int = 1000) -> ResourceMetric:
    samples = {pod.name: Sample(usage, NOW, 30) for pod, usage in zip(pods, usage_milli, strict=False)}
    return ResourceMetric("cpu", samples, target, requests_milli={pod.name: request_milli for pod in pods})


def scaled(spec: HpaSpec, current: int, *metrics: ExternalMetric | ResourceMetric | PodsMetric | ObjectMetric,
           pods: list[Pod] | None = None, history: History | None = None) -> Outcome:  # fmt: skip
    return recommend(
        spec, ready_pods(current) if pods is None else pods, metrics, history or History(), NOW, current=current
    )


def test_a_ratio_of_doubles_is_rounded_up_without_an_epsilon() -> None:
    """300 % at target 72 with 30 replicas is 126: 300/72*30 is a little more than 125 in doubles."""
    pods = ready_pods(30)
    assert scaled(FREE, 30, cpu(pods, [3000] * 30, 72), pods=pods).replicas == 126


@pytest.mark.parametrize(("total", "expected"), [(89_999, 9), (90_000, 10), (110_000, 10), (110_001, 12)])
def test_tolerance_is_inclusive_on_both_sides(total: int, expected: int) -> None:
    """Nothing moves from 0.9 to 1.1 of the target, both included."""
    metric = ExternalMetric("depth", (total,), target_average_milli=10_000)
    assert scaled(FREE, 10, metric).replicas == expected


def test_each_direction_may_have_its_own_tolerance() -> None:
    """A tolerance in `behavior` replaces the controller's in its direction alone."""
    assert FREE.behavior is not None
    spec = replace(FREE, behavior=replace(FREE.behavior, scale_up=replace(FREE.behavior.scale_up, tolerance=0.5)))
    assert scaled(spec, 10, ExternalMetric("depth", (140_000,), target_average_milli=10_000)).replicas == 10
    assert scaled(spec, 10, ExternalMetric("depth", (80_000,), target_average_milli=10_000)).replicas == 8


def test_the_count_comes_from_ready_pods_with_samples() -> None:
    """10 replicas, 2 of them ready at half the target: 1, though the current count is 10."""
    pods = ready_pods(2) + [Pod(f"u{i}", phase="Pending") for i in range(8)]
    assert scaled(FREE, 10, cpu(pods, [250, 250], 50), pods=pods).replicas == 1


def test_missing_pods_hold_the_change_back() -> None:
    """Without a sample a pod counts as idle on the way up and as fully busy on the way down."""
    pods = ready_pods(4)
    assert scaled(FREE, 4, cpu(pods, [1000, 1000], 50), pods=pods).replicas == 4
    assert scaled(FREE, 4, cpu(pods, [100, 100], 50), pods=pods).replicas == 4


def test_a_missing_request_fails_the_metric_even_of_an_ignored_pod() -> None:
    """Requests are asked of every listed pod."""
    pods = [*ready_pods(2), Pod("gone", deleting=True)]
    metric = cpu(pods, [900, 900], 50)
    metric = replace(metric, requests_milli={"p0": 1000, "p1": 1000})
    outcome = scaled(FREE, 3, metric, pods=pods)
    assert (outcome.replicas, outcome.active) == (3, "FailedGetResourceMetric")
    assert "missing request for cpu of pod gone" in outcome.error


def test_object_value_counts_ready_pods_deleting_ones_too() -> None:
    """`ceil(ratio * running and ready)`; none ready gives 0, so the minimum."""
    metric = ObjectMetric("latency", 2000, target_value_milli=1000)
    pods = [*ready_pods(1), replace(ready_pods(1)[0], name="d", deleting=True)]
    assert scaled(FREE, 4, metric, pods=pods).replicas == 4
    assert scaled(FREE, 4, metric, pods=[Pod("u")]).replicas == 1


def test_a_negative_external_sum_is_an_overflow() -> None:
    """It goes to the maximum; the proposal is capped at the greatest int32."""
    outcome = scaled(FREE, 100, ExternalMetric("depth", (-1,), target_average_milli=10))
    assert outcome.metrics[0].replicas == MAX_INT32
    assert outcome.replicas == 10_000


def test_with_a_failed_metric_nothing_shrinks() -> None:
    """The valid ones count only if they ask for no less than there is, and the error is told all the same."""
    failed = ExternalMetric("broken", None, target_average_milli=1000)
    up = scaled(FREE, 3, failed, ExternalMetric("depth", (9000,), target_average_milli=1000))
    down = scaled(FREE, 3, failed, ExternalMetric("depth", (1000,), target_average_milli=1000))
    assert (up.replicas, down.replicas) == (9, 3)
    assert up.error
    assert down.error
    assert down.history.recommendations == (Remembered(3, NOW),)


def test_bounds_act_at_once_without_metrics() -> None:
    """Above the maximum or below the minimum no window or rate is asked; at 0 scaling is off."""
    failed = ExternalMetric("broken", None, target_average_milli=1000)
    spec = HpaSpec(max_replicas=5, min_replicas=2, behavior=Behavior())
    assert scaled(spec, 9, failed).replicas == 5
    assert scaled(spec, 1, failed).replicas == 2
    assert scaled(spec, 0, failed).active == "ScalingDisabled"


def test_without_behavior_the_window_is_inclusive_and_growth_at_most_doubles() -> None:
    """The largest of the last 300 s, at exactly 300 s still; then max(2 * current, 4)."""
    quiet = ExternalMetric("depth", (1000,), target_average_milli=1000)
    busy = ExternalMetric("depth", (900_000,), target_average_milli=1000)
    at = [History((Remembered(5, NOW - age),)) for age in (300, 300.001)]
    assert [scaled(SPEC, 5, quiet, history=history).replicas for history in at] == [5, 1]
    assert scaled(SPEC, 1, busy).replicas == 4
    assert scaled(SPEC, 7, busy).replicas == 14


def test_with_behavior_windows_are_exclusive() -> None:
    """A recommendation as old as the window counts no more."""
    spec = HpaSpec(max_replicas=100, behavior=Behavior())
    quiet = ExternalMetric("depth", (1000,), target_average_milli=1000)
    at = [History((Remembered(5, NOW - age),)) for age in (299.999, 300)]
    assert [scaled(spec, 5, quiet, history=history).replicas for history in at] == [5, 1]


@pytest.mark.parametrize(
    ("current", "policy", "total", "expected"),
    [(100, Policy("Percent", 10, 15), 900, 111), (200, Policy("Percent", 56, 15), 1, 87)],
)
def test_percent_rates_are_computed_in_doubles(current: int, policy: Policy, total: int, expected: int) -> None:
    """100 + 10 % is rounded up to 111, 200 - 56 % cut to 87."""
    rules = Rules(0, policies=(policy,))
    spec = HpaSpec(max_replicas=1000, behavior=Behavior(rules, rules))
    metric = ExternalMetric("depth", (total * 1000,), target_average_milli=1000)
    assert scaled(spec, current, metric).replicas == expected


def test_rates_count_both_directions_within_the_policys_own_period() -> None:
    """From a period's start of 10: 6 added and 1 removed since; events as old as the period don't count."""
    rules = Rules(0, policies=(Policy("Pods", 8, 60),))
    spec = HpaSpec(max_replicas=1000, behavior=Behavior(rules, rules))
    history = History((), (Change(6, NOW - 59), Change(90, NOW - 60)), (Change(1, NOW - 1),))
    metric = ExternalMetric("depth", (900_000,), target_average_milli=1000)
    outcome = scaled(spec, 15, metric, history=history)
    assert (outcome.replicas, outcome.limited) == (18, "ScaleUpLimit")


def test_a_change_is_remembered_in_the_place_of_an_outdated_one() -> None:
    """The last event older than the longest period is overwritten; without `behavior` none is kept."""
    spec = HpaSpec(max_replicas=100, behavior=Behavior())
    history = History((), (Change(1, NOW - 16), Change(2, NOW - 15), Change(3, NOW - 20)))
    assert record_change(spec, history, 1, 5, NOW).ups == (
        Change(1, NOW - 16, outdated=True),
        Change(2, NOW - 15),
        Change(4, NOW),
    )
    assert record_change(SPEC, history, 1, 5, NOW) == history


@pytest.mark.parametrize(
    ("text", "milli"),
    [("500m", 500), ("1", 1000), ("1.5Gi", 1_610_612_736_000), ("1n", 1), ("-1n", -1), ("0.0005", 1), ("1e3", 10**6)],
)
def test_quantities_are_rounded_away_from_zero_to_milli_units(text: str, milli: int) -> None:
    """As `Quantity.MilliValue` does."""
    assert milli_value(text) == milli


def test_a_tolerances_double_is_mantissa_times_power_of_ten() -> None:
    """As `Quantity.AsApproximateFloat64` gives it, which is not always the nearest double."""
    assert approximate_float("0.57") == 57 * 0.01 != 0.57


@pytest.mark.parametrize("text", ["", "x", "1Kii", "1 Ki", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """The message quotes it."""
    with pytest.raises(ValueError, match="is not a quantity"):
        milli_value(text)


@given(st.integers(-(2**70), 2**70))
def test_integers_wrap_as_twos_complement(value: int) -> None:
    """Both widths keep the low bits."""
    assert (int32(value) - value) % 2**32 == 0
    assert MIN_INT32 <= int32(value) <= MAX_INT32
    assert (int64(value) - value) % 2**64 == 0


@given(st.integers(-(2**62), 2**62), st.integers(1, 2**62), st.booleans())
def test_quotients_are_cut_toward_zero(numerator: int, denominator: int, negative: bool) -> None:
    """So the remainder has the numerator's sign."""
    denominator = -denominator if negative else denominator
    rest = numerator - quotient(numerator, denominator) * denominator
    assert abs(rest) < abs(denominator)
    assert rest == 0 or (rest < 0) == (numerator < 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 2.0**31, -(2.0**31) - 1])
def test_a_double_out_of_range_becomes_the_least_int32(value: float) -> None:
    """What amd64's conversion gives."""
    assert ceil_to_int32(value) == MIN_INT32


@given(st.integers(0, 2**31), st.integers(0, 999), st.integers(0, 10**5))
def test_milliseconds_of_epoch_seconds_are_exact(second: int, milli: int, period: int) -> None:
    """Adding whole seconds to an instant moves it by exactly that, whatever doubles do in between."""
    instant = second + milli / 1000
    assert nanoseconds(instant) == second * 10**9 + milli * 10**6
    assert nanoseconds(instant + period) - nanoseconds(instant) == period * 10**9


@given(
    st.integers(0, 60), st.integers(0, 30), st.integers(0, 30), st.integers(-5, 10**7), st.booleans(),
    st.lists(st.tuples(st.integers(0, 60), st.floats(0, 400)), max_size=5),
)  # fmt: skip
def test_bounds_always_hold(
    current: int, low: int, width: int, total: int, with_behavior: bool, past: list[tuple[int, float]]
) -> None:
    """Whatever is asked and remembered, a count that was within the bounds stays within them."""
    spec = HpaSpec(max(1, low + width), low, Behavior() if with_behavior else None)
    history = History(tuple(Remembered(count, NOW - age) for count, age in past))
    outcome = scaled(spec, current, ExternalMetric("x", (total,), target_average_milli=1000), history=history)
    if not (current == 0 and low > 0):
        assert low <= outcome.replicas <= spec.max_replicas
