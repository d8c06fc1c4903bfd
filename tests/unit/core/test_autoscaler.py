"""How many replicas an agent should have, by example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shoal.core.autoscaler import decide, record_scaling
from shoal.core.decision import Decision, Pin, Recommendation, ScaleEvent, ScalingHistory
from shoal.core.observed import Phase, Replica
from shoal.core.signals import Reading, Signals, Usage
from shoal.spec.model import Resources
from shoal.spec.scaling import Scale

NOW = 1_700_000_000.0
EMPTY = ScalingHistory()


def scale_of(**document: Any) -> Scale:
    return Scale.model_validate(document)


def replicas_of(count: int) -> tuple[Replica, ...]:
    return tuple(
        Replica(f"r{i}", "a", "v", Phase.RUNNING, ready=True, started_at=NOW - 4000, ready_at=NOW - 3990)
        for i in range(count)
    )


def total(name: str, value: float) -> Signals:
    return Signals(**{name: Reading(value, NOW)})  # type: ignore[arg-type] - one of the four readings


def cpu_use(cores: list[float]) -> Signals:
    return Signals(usage={f"r{i}": Usage(use, 2**20, NOW) for i, use in enumerate(cores)})


def decided(
    scale: Scale,
    current: int,
    signals: Signals,
    *,
    history: ScalingHistory = EMPTY,
    pin: Pin | None = None,
    now: float = NOW,
    resources: Resources | None = None,
    replicas: tuple[Replica, ...] | None = None,
) -> Decision:
    there = replicas_of(current) if replicas is None else replicas
    return decide("a", scale, resources or Resources(), there, current, signals, history, pin, now)[0]


@pytest.mark.parametrize("trigger", ["concurrency", "rps", "queue_depth"])
def test_totals_are_shared_among_replicas(trigger: str) -> None:
    """`ceil(total / target)`: 41 at 20 a replica needs 3."""
    scale = scale_of(max=10, target={trigger: 20})
    decision = decided(scale, 1, total(trigger, 41))
    assert decision.count == 3
    assert decision.reason == f"{trigger} 41 (target 20 a replica) asks for 3"
    assert decision.proposals[0].value == 41


def test_p95_scales_the_ready_replicas() -> None:
    """Twice the time allowed asks for twice the replicas that are ready."""
    scale = scale_of(max=10, target={"p95": "100ms"})
    assert decided(scale, 3, Signals(p95_s=Reading(0.2, NOW))).count == 6
    starting = (*replicas_of(2), Replica("new", "a", "v", Phase.RUNNING, started_at=NOW))
    assert decided(scale, 3, Signals(p95_s=Reading(0.2, NOW)), replicas=starting).count == 4


def test_a_latency_unknown_for_want_of_requests_lets_it_shrink() -> None:
    """No request, nothing late; but unknown while requests are under way says nothing."""
    scale = scale_of(max=10, target={"p95": "100ms"}, behavior={"scale_down": {"stabilization_window": 0}})
    quiet = Signals(rps=Reading(0, NOW), concurrency=Reading(0, NOW))
    assert decided(scale, 4, quiet).count == 1
    assert decided(scale, 4, replace(quiet, concurrency=Reading(1, NOW))).count == 4


@pytest.mark.parametrize(("cores", "expected"), [([0.35, 0.35], 2), ([0.7, 0.7], 4), ([0.385, 0.385], 2)])
def test_cpu_is_percent_of_the_request(cores: list[float], expected: int) -> None:
    """At 70 % of 500m, 350m a replica is right, twice as much needs twice the replicas, 10 % more is tolerated."""
    decision = decided(
        scale_of(max=10, target={"cpu": "70%"}), 2, cpu_use(cores), resources=Resources.model_validate({"cpu": 0.5})
    )
    assert decision.count == expected
    assert decision.proposals[0].value == cores[0] / 0.5 * 100


def test_percent_of_no_request_is_an_error_in_words() -> None:
    """The count stays, and the reason says what is missing in the spec."""
    decision = decided(scale_of(max=10, target={"memory": 70}), 2, cpu_use([1, 1]))
    assert (decision.count, decision.proposals[0].count) == (2, None)
    assert decision.reason.startswith("kept at 2: memory: the agent has no resources.memory")


def test_the_largest_proposal_wins() -> None:
    """Several targets: each must be borne."""
    scale = scale_of(max=10, target={"concurrency": 20, "rps": 10})
    signals = Signals(concurrency=Reading(30, NOW), rps=Reading(45, NOW))
    decision = decided(scale, 2, signals)
    assert decision.count == 5
    assert decision.reason.startswith("rps 45")


def test_what_is_not_known_shrinks_nothing() -> None:
    """One trigger is unknown: the others may ask for more, not for less."""
    scale = scale_of(
        max=10, target={"concurrency": 20, "rps": 10}, behavior={"scale_down": {"stabilization_window": 0}}
    )
    assert decided(scale, 4, total("rps", 5)).count == 4
    assert decided(scale, 4, total("rps", 60)).count == 6
    assert "concurrency: not known yet" in decided(scale, 4, total("rps", 60)).reason


def test_bounds_act_at_once() -> None:
    """Without signals, windows and rates."""
    scale = scale_of(min=2, max=5, target={"rps": 10})
    assert (decided(scale, 0, Signals()).count, decided(scale, 0, Signals()).capped_by) == (2, "min")
    assert (decided(scale, 9, Signals()).count, decided(scale, 9, Signals()).capped_by) == (5, "max")
    assert decided(scale, 3, total("rps", 900)).capped_by == "max"


def test_a_fixed_count_needs_no_trigger() -> None:
    """`scale: 3` is 3, with nothing due ever."""
    decision = decided(scale_of(min=3, max=3), 3, Signals())
    assert (decision.count, decision.due_at) == (3, None)


def test_a_pin_goes_before_everything_until_it_expires() -> None:
    """It may be past the bounds; the answer can change when it expires."""
    scale = scale_of(min=1, max=5, target={"rps": 10})
    held = decided(scale, 2, total("rps", 30), pin=Pin(8, NOW + 60))
    assert (held.count, held.capped_by, held.due_at) == (8, "pin", NOW + 60)
    assert decided(scale, 2, total("rps", 30), pin=Pin(0)).count == 0
    assert decided(scale, 2, total("rps", 30), pin=Pin(0)).due_at is None
    assert decided(scale, 8, total("rps", 30), pin=Pin(8, NOW)).count == 5


@pytest.mark.parametrize(
    "signals", [Signals(held=1), total("queue_depth", 1), Signals(held=3, concurrency=Reading(3, NOW))]
)
def test_work_wakes_from_zero_at_once(signals: Signals) -> None:
    """At least 1, though no trigger can tell and a window or a rate would hold it back."""
    behavior = {"scale_up": {"stabilization_window": "10m", "select_policy": "disabled"}}
    scale = scale_of(min=0, max=5, target={"rps": 10}, behavior=behavior)
    history = ScalingHistory((Recommendation(NOW - 1, 0),))
    assert decided(scale, 0, signals, history=history).count == 1


def test_zero_is_reached_through_the_scale_down_window() -> None:
    """One task 299 s ago keeps the last replica; at 300 s it goes, and that is when the answer is due."""
    scale = scale_of(min=0, max=5, target={"queue_depth": 10})
    history = ScalingHistory((Recommendation(NOW - 299, 1),))
    before = decided(scale, 1, total("queue_depth", 0), history=history)
    assert (before.count, before.capped_by, before.due_at) == (1, "stabilization", NOW + 1)
    assert decided(scale, 1, total("queue_depth", 0), history=history, now=NOW + 1).count == 0


def test_who_takes_over_does_not_shrink_on_an_empty_memory() -> None:
    """The current count is the first recommendation."""
    decision = decided(scale_of(max=9, target={"rps": 10}), 6, total("rps", 10))
    assert (decision.count, decision.due_at) == (6, NOW + 300)


def test_a_rate_lets_more_in_when_its_period_is_over() -> None:
    """From 2 at most 4 more in 15 s; then the rest, at the instant that was named."""
    scale = scale_of(max=50, target={"rps": 1})
    first, history = decide("a", scale, Resources(), replicas_of(2), 2, total("rps", 30), EMPTY, None, NOW)
    assert (first.count, first.capped_by, first.due_at) == (6, "scale_up policy", NOW + 15)
    history = record_scaling(history, scale, 2, 6, NOW)
    again = decided(scale, 6, total("rps", 30), history=history, now=NOW + 14.9)
    later = decided(scale, 6, total("rps", 30), history=history, now=NOW + 15)
    assert (again.count, later.count) == (6, 12)


def test_a_window_opens_and_closes_by_the_clock() -> None:
    """8 to 18 h in Berlin at least 4; outside what the load needs, and each edge is due."""
    window = {"start": "0 8 * * *", "end": "0 18 * * *", "time_zone": "Europe/Berlin", "replicas": 4}
    scale = scale_of(max=10, target={"rps": 10}, cron=[window], behavior={"scale_down": {"stabilization_window": 0}})
    opens, closes = 1_767_942_000.0, 1_767_978_000.0  # 9 January 2026, 08:00 and 18:00 in Berlin
    quiet = total("rps", 5)
    before = decided(scale, 1, quiet, now=opens - 1)
    assert (before.count, before.due_at) == (1, opens)
    within = decided(scale, 1, quiet, now=opens)
    assert (within.count, within.reason, within.due_at) == (4, "an open cron window asks for 4", closes)
    assert decided(scale, 4, quiet, now=closes).count == 1
    assert decided(scale, 4, total("rps", 70), now=opens).count == 7


def test_a_new_replicas_cpu_counts_with_reserve_at_first() -> None:
    """Not ready within 5 min of its start: its use is not counted; the end of that time is due."""
    new = Replica("r2", "a", "v", Phase.RUNNING, started_at=NOW - 100)
    decision = decided(
        scale_of(max=10, target={"cpu": 50}), 3, cpu_use([0.5, 0.5, 4]),
        resources=Resources.model_validate({"cpu": 1}), replicas=(*replicas_of(2), new),
    )  # fmt: skip
    assert (decision.count, decision.due_at) == (3, NOW + 200)


def test_events_past_every_period_are_forgotten() -> None:
    """The longest period counts, of either direction, for events of both."""
    scale = scale_of(
        max=10,
        behavior={"scale_down": {"policies": [{"type": "pods", "value": 1, "period": 60}]}},
    )
    history = ScalingHistory((), (ScaleEvent(NOW - 60, 1), ScaleEvent(NOW - 59, 2)), (ScaleEvent(NOW - 300, 1),))
    assert record_scaling(history, scale, 3, 2, NOW) == ScalingHistory(
        (), (ScaleEvent(NOW - 59, 2),), (ScaleEvent(NOW, 1),)
    )
    assert record_scaling(history, scale, 3, 3, NOW) is history


def test_the_memory_stays_small_however_often_it_is_asked() -> None:
    """A recommendation that a later one outlives is forgotten."""
    scale = scale_of(max=100, target={"rps": 1})
    history, now = EMPTY, NOW
    for second in range(3000):
        now = NOW + second / 5
        load = 50 + second % 7
        _, history = decide("a", scale, Resources(), replicas_of(60), 60, total("rps", load), history, None, now)
    assert len(history.recommendations) <= 8
