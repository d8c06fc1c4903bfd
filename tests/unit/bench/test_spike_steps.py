"""Where the time of a spike goes."""

from __future__ import annotations

import pytest

from bench.load import summarize
from bench.spike import BEFORE_RPS, BEFORE_S, SPIKE_RPS, schedule
from bench.spike_steps import STEPS, passes_at, steps_of
from shoal.api.views import EventView, ReplicaView


def replica(started_at: float) -> ReplicaView:
    return ReplicaView("a-2", "r", "running", ready=True, address=None, started_at=started_at, restarts=0, reason="")


def test_steps_add_up_to_the_whole() -> None:
    """Each begins where the one before ended."""
    marks = {"main": 10.62, "listening": 10.7, "engine-check": 10.71, "gateway-check": 10.73, "request": 10.74}
    steps = steps_of(
        spike_at=10.0,
        seen_at=10.75,
        in_flight=[(9.0 + number, 99.0) for number in range(2)] + [(10.0, 99.0)] * 100,
        target=20.0,
        events=[EventView(9.9, "a", "scaled", ""), EventView(10.5, "a", "scaled", ""), EventView(10.9, "a", "x", "")],
        replica=replica(10.51),
        marks=marks,
    )
    assert list(steps.parts) == list(STEPS)
    assert sum(steps.parts.values()) == pytest.approx(steps.total_s) == pytest.approx(0.75)
    assert steps.parts["spawn"] == pytest.approx(0.01)
    assert steps.program_s == pytest.approx(10.7 - 10.51)


def test_what_is_not_known_is_left_out() -> None:
    """The step after it holds the time of both."""
    steps = steps_of(spike_at=1.0, seen_at=2.0, in_flight=[], target=1.0, events=[], replica=None, marks={"main": 1.5})
    assert steps.parts == {"interpreter": 0.5, "first answer": 0.5}


def test_demand_passes_when_the_mean_does() -> None:
    """40 in flight from 10.0 on are a mean of 22 over a second once 0.55 s of it are over."""
    assert passes_at([(10.0, 20.0)] * 40, 22.0, 10.0) == pytest.approx(10.55, abs=0.011)
    assert passes_at([(10.0, 20.0)] * 22, 22.0, 10.0) is None


def test_the_load_is_for_one_replica_and_then_for_four() -> None:
    """Evenly spaced, in order, one rate after the other."""
    requests = schedule()
    before = [request for request in requests if request.at_s < BEFORE_S]
    assert len(before) == BEFORE_S * BEFORE_RPS
    assert requests[len(before)].at_s == BEFORE_S
    assert requests[-1].at_s - BEFORE_S == pytest.approx((len(requests) - len(before) - 1) / SPIKE_RPS)
    assert [request.at_s for request in requests] == sorted(request.at_s for request in requests)
    assert summarize([]).requests == 0
