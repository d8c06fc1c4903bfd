"""What holds of every decision, whatever the spec, the samples and the past."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.autoscaler import decide, record_scaling
from shoal.core.decision import Decision, Pin, Recommendation, ScaleEvent, ScalingHistory
from shoal.core.observed import Phase, Replica
from shoal.core.signals import Reading, Signals, Usage
from shoal.spec.model import Resources
from shoal.spec.scaling import Scale

NOW = 1_700_000_000
RESOURCES = Resources.model_validate({"cpu": 1, "memory": "1Gi"})
PERIODS = [1, 5, 15, 60]


@dataclass(frozen=True)
class Case:
    """Equal samples, for as long as a test asks."""

    scale: Scale
    signals: Signals
    replicas: tuple[Replica, ...]
    current: int
    history: ScalingHistory
    pin: Pin | None

    def decided(self, now: float, current: int, history: ScalingHistory) -> tuple[Decision, ScalingHistory]:
        return decide("a", self.scale, RESOURCES, self.replicas, current, self.signals, history, self.pin, now)

    def carried_out(self, now: float, current: int, history: ScalingHistory) -> tuple[Decision, ScalingHistory]:
        decision, history = self.decided(now, current, history)
        return decision, record_scaling(history, self.scale, current, decision.count, now)


def rules() -> st.SearchStrategy[dict[str, Any]]:
    policy = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["pods", "percent"]),
            "value": st.sampled_from([1, 2, 4, 10, 50, 100, 200]),
            "period": st.sampled_from(PERIODS),
        }
    )
    return st.fixed_dictionaries(
        {},
        optional={
            "stabilization_window": st.sampled_from([0, 10, 30, 60]),
            "select_policy": st.sampled_from(["max", "max", "min", "disabled"]),
            "policies": st.lists(policy, min_size=1, max_size=2),
            "tolerance": st.sampled_from([0.0, 0.05, 0.5]),
        },
    )


def windows() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "start": st.sampled_from(["*/2 * * * *", "15 * * * *", "14 22 * * *"]),
            "end": st.sampled_from(["1-59/2 * * * *", "17 * * * *", "0 6 * * *"]),
            "replicas": st.integers(0, 25),
        }
    )


@st.composite
def scales(draw: st.DrawFn, triggers: tuple[str, ...], cron: bool = False) -> Scale:
    low = draw(st.integers(0, 5))
    chosen = draw(st.lists(st.sampled_from(triggers), unique=True, max_size=2))
    return Scale.model_validate(
        {
            "min": low,
            "max": max(1, low + draw(st.integers(0, 30))),
            "target": {trigger: draw(st.sampled_from([1, 3, 10, 70])) for trigger in chosen},
            "behavior": {"scale_up": draw(rules()), "scale_down": draw(rules())},
            "cron": draw(st.lists(windows(), max_size=2)) if cron else [],
        }
    )


TOTALS = ("concurrency", "rps", "queue_depth")


@st.composite
def cases(draw: st.DrawFn, triggers: tuple[str, ...] = (*TOTALS, "p95", "cpu"), cron: bool = True) -> Case:
    reading = st.none() | st.builds(Reading, st.sampled_from([0.0, 0.5, 1.0, 9.0, 11.0, 33.0, 200.0]), st.just(NOW))
    ages = st.integers(0, 70)
    replicas = tuple(
        Replica(
            f"r{i}", "a", "v", draw(st.sampled_from([*[Phase.RUNNING] * 6, *Phase])), ready=draw(st.booleans()),
            started_at=NOW - draw(st.sampled_from([0, 10, 290, 299, 4000])), ready_at=draw(st.none() | st.just(NOW)),
        )
        for i in range(draw(st.integers(0, 5)))
    )  # fmt: skip
    usage = {
        r.id: Usage(draw(st.sampled_from([0.0, 0.1, 0.7, 0.9, 3.0])), 2**20, NOW)
        for r in replicas
        if draw(st.integers(0, 4))
    }
    signals = Signals(
        concurrency=draw(reading), rps=draw(reading), p95_s=draw(reading), queue_depth=draw(reading),
        held=draw(st.sampled_from([0, 0, 0, 2])), usage=usage,
    )  # fmt: skip
    past = st.builds(lambda age, count: Recommendation(NOW - age, count), ages, st.integers(0, 40))
    event = st.builds(lambda age, change: ScaleEvent(NOW - age, change), ages, st.integers(1, 9))
    history = ScalingHistory(
        tuple(sorted(draw(st.lists(past, max_size=5)), key=lambda p: p.at)),
        tuple(draw(st.lists(event, max_size=3))),
        tuple(draw(st.lists(event, max_size=3))),
    )
    pin = draw(st.sampled_from([None, None, None, Pin(7), Pin(3, NOW + 40), Pin(2, NOW - 1)]))
    return Case(draw(scales(triggers, cron)), signals, replicas, draw(st.integers(0, 40)), history, pin)


@given(cases())
def test_the_bounds_hold(case: Case) -> None:
    """Without a pin the count is never outside of min and max."""
    decision, _ = replace(case, pin=None).decided(NOW, case.current, case.history)
    assert case.scale.min <= decision.count <= case.scale.max


@given(cases())
def test_equal_questions_have_equal_answers(case: Case) -> None:
    """To the last word."""
    assert case.decided(NOW, case.current, case.history) == case.decided(NOW, case.current, case.history)


@given(st.sampled_from(TOTALS), st.integers(1, 30), st.floats(0.9, 1.1), st.sampled_from([1.0, 3.0, 10.0]))
def test_inside_the_tolerance_nothing_moves(trigger: str, current: int, ratio: float, target: float) -> None:
    """A load within 10 % of what the replicas should bear changes nothing, and nothing is due."""
    scale = Scale.model_validate({"max": 50, "target": {trigger: target}})
    load = min(max(ratio * target * current, 0.9001 * target * current), 1.0999 * target * current)
    signals = Signals(**{trigger: Reading(load, NOW)})  # type: ignore[arg-type] - one of the four readings
    decision, _ = decide("a", scale, RESOURCES, (), current, signals, ScalingHistory(), None, NOW)
    assert (decision.count, decision.due_at) == (current, None)


@given(cases(TOTALS, cron=False), st.sampled_from(TOTALS), st.floats(0, 300), st.floats(0, 300))
def test_more_load_never_means_fewer_replicas(case: Case, trigger: str, one: float, other: float) -> None:
    """With all else equal and known, the count is monotone in a total."""
    target = {trigger: 3, **case.scale.target.model_dump(exclude_none=True, by_alias=True)}
    scale = Scale.model_validate({**case.scale.model_dump(by_alias=True, exclude_none=True), "target": target})
    full = replace(case.signals, **{name: Reading(0.0, NOW) for name in TOTALS if getattr(case.signals, name) is None})
    counts = [
        replace(case, scale=scale, pin=None, signals=replace(full, **{trigger: Reading(load, NOW)}))
        .decided(NOW, case.current, case.history)[0]
        .count
        for load in sorted((one, other))
    ]
    assert counts[0] <= counts[1]


@settings(max_examples=200)
@given(cases(), st.lists(st.floats(0, 130), min_size=1, max_size=8))
def test_nothing_changes_before_it_is_due(case: Case, delays: list[float]) -> None:
    """Asked at any time before `due_at`, with what was decided carried out, the answer is the same."""
    decision, history = case.carried_out(NOW, case.current, case.history)
    kept = history
    for delay in sorted(delays):
        if decision.due_at is not None and NOW + delay >= decision.due_at:
            break
        again, _ = case.decided(NOW + delay, decision.count, history)
        assert again.count == decision.count
        threaded, kept = case.decided(NOW + delay, decision.count, kept)
        assert threaded.count == decision.count


@settings(max_examples=60)
@given(cases(TOTALS, cron=False))
def test_asking_only_when_due_is_as_good_as_asking_always(case: Case) -> None:
    """Every second for two minutes, or at `due_at` alone: the counts are the same at every second."""
    always, due = [], []
    current, history = case.current, case.history
    for second in range(120):
        decision, history = case.carried_out(NOW + second, current, history)
        current = decision.count
        while decision.due_at is not None and decision.due_at <= NOW + second:
            decision, history = case.carried_out(NOW + second, current, history)
            current = decision.count
        always.append(current)
    current, history = case.current, case.history
    due_at: float | None = NOW
    for second in range(120):
        while due_at is not None and due_at <= NOW + second:
            decision, history = case.carried_out(due_at, current, history)
            current, due_at = decision.count, decision.due_at
        due.append(current)
    assert due == always


@given(cases())
def test_asking_again_at_once_comes_to_rest(case: Case) -> None:
    """An answer that is due at the same instant again leads to one that is not, in a few steps."""
    current, history, due_at, asked = case.current, case.history, NOW, 0
    while due_at is not None and due_at <= NOW and asked < 60:
        decision, history = case.carried_out(NOW, current, history)
        current, due_at, asked = decision.count, decision.due_at, asked + 1
    assert due_at is None or due_at > NOW


@given(cases(), st.lists(st.tuples(st.floats(0, 20), st.sampled_from([0.0, 5.0, 40.0, 200.0])), max_size=25))
def test_what_is_forgotten_changes_no_answer(case: Case, steps: list[tuple[float, float]]) -> None:
    """With the whole past remembered the counts are those with what is kept of it."""
    # Never empty, or the first answer would seed what only one of the two keeps.
    short = long = replace(case.history, recommendations=(*case.history.recommendations, Recommendation(NOW, 5)))
    current, now = case.current, float(NOW)
    for delay, load in steps:
        now += delay
        asked = replace(case, signals=replace(case.signals, rps=Reading(load, now), queue_depth=Reading(load, now)))
        decision, short = asked.decided(now, current, short)
        whole, grown = asked.decided(now, current, long)
        assert whole.count == decision.count
        if len(grown.recommendations) and grown.recommendations[-1] not in long.recommendations:
            long = replace(grown, recommendations=(*long.recommendations, grown.recommendations[-1]))
        if decision.count != current:
            short = record_scaling(short, case.scale, current, decision.count, now)
            ups = (*long.ups, ScaleEvent(now, decision.count - current)) if decision.count > current else long.ups
            downs = long.downs if decision.count > current else (*long.downs, ScaleEvent(now, current - decision.count))
            long = replace(long, ups=ups, downs=downs)
        current = decision.count
