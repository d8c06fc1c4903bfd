"""When a rollout is given up, and when nothing can be held against it."""

from __future__ import annotations

from dataclasses import replace

from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.core.rollout import Rollout, RolloutPhase, advance, gives_up_at
from shoal.spec.model import Agent

WEB = Agent.model_validate({"command": "serve", "port": 80, "update": {"progress_deadline": 20}})
BEGUN = Rollout("new", None, 1, started_at=0.0, progressed_at=0.0, left=0)
QUEUED = AgentObserved("web", {"new": 1}, queued=frozenset({"new"}))
NOT_READY = AgentObserved("web", {"new": 1}, (Replica("web-1", "web", "new", Phase.RUNNING, reason="slow"),))


def look(rollout: Rollout, observed: AgentObserved, now: float) -> Rollout:
    return advance(rollout, WEB, observed, desired=1, healthy=None, now=now)


def test_replicas_that_the_engine_has_not_come_to_cost_no_time() -> None:
    """However long it takes; at least half of the time is left once they are made."""
    rollout, now = BEGUN, 0.0
    for _ in range(10):
        due = now + 10.0
        assert gives_up_at(rollout, WEB, QUEUED, now=now) == due
        assert look(rollout, QUEUED, due - 0.1) is rollout
        rollout, now = look(rollout, QUEUED, due), due
    assert (rollout.phase, rollout.progressed_at) == (RolloutPhase.PROGRESSING, 100.0)
    assert gives_up_at(rollout, WEB, NOT_READY, now=109.9) == 120.0
    assert look(rollout, NOT_READY, 119.9) is rollout
    assert look(rollout, NOT_READY, 120.0).reason == "no progress for 20s, 0 of 1 ready; web-1: slow"


def test_another_versions_queue_is_no_excuse() -> None:
    other = replace(NOT_READY, queued=frozenset({"old"}))
    assert look(BEGUN, other, 20.0).phase is RolloutPhase.FAILED
