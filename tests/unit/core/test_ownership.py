"""Whose a count is: one owner at any time, and what of scaling an HPA can do at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shoal.core.action import Autoscale, EnsureRevision, Scale
from shoal.core.autoscaler import decide
from shoal.core.decision import Pin, ScalingHistory
from shoal.core.observed import AgentObserved, Autoscaler, CountOwner, Phase, Replica
from shoal.core.ownership import Held, held_count, is_native, scaled_by_shoal
from shoal.core.reconcile import Step, Wanted, reconcile
from shoal.core.revision import template_of
from shoal.core.rollout import Rollout, RolloutPhase
from shoal.core.signals import Signals
from shoal.spec.model import Fleet, Resources
from shoal.spec.scaling import Scale as Rules

KUBECTL = CountOwner("kubectl")
KEDA = CountOwner("ScaledObject web", lasting=True)
HPA = CountOwner("HPA web", lasting=True)
RULES = Rules.model_validate({"min": 1, "max": 8, "target": {"cpu": "50%"}})


def rollout(phase: RolloutPhase = RolloutPhase.COMPLETE, revision: str = "r2", stable: str | None = "r1") -> Rollout:
    return Rollout(revision, stable, 1, 0.0, 0.0, phase=phase)


def seen(owner: CountOwner | None = None, autoscaler: str | None = None, **counts: int) -> AgentObserved:
    """An agent whose counts have all the same owner."""
    there = Autoscaler(autoscaler, HPA) if autoscaler else None
    return AgentObserved("web", counts, owners=dict.fromkeys(counts, owner) if owner else {}, autoscaler=there)


def held(observed: AgentObserved, now: Rollout | None, *, stateful: bool = False, **more: Any) -> Held | None:
    return held_count(observed, now, stateful=stateful, **more)


def test_who_set_the_count_of_what_serves_has_it() -> None:
    """Not who set that of another revision, nor from whom it was taken."""
    assert held(seen(KUBECTL, r2=5), rollout()) == Held(5, KUBECTL)
    assert held(AgentObserved("web", {"r1": 0, "r2": 5}, owners={"r1": KUBECTL}), rollout()) is None
    assert held(seen(KUBECTL, r2=5), rollout(), overruled=KUBECTL) is None


def test_after_a_version_that_was_given_up_it_is_the_one_before_that_serves() -> None:
    """So who set that one's count has it."""
    observed = AgentObserved("web", {"r1": 3, "r2": 0}, owners={"r1": KUBECTL})
    assert held(observed, rollout(RolloutPhase.FAILED)) == Held(3, KUBECTL)


@pytest.mark.parametrize(
    ("owner", "stateful", "has_it"), [(KUBECTL, True, False), (KEDA, False, False), (KEDA, True, True)]
)
def test_while_a_version_takes_over_counts_are_shoals(owner: CountOwner, stateful: bool, has_it: bool) -> None:
    """But for who goes on setting that of the one object that a stateful agent has: a fight would never end."""
    found = held(seen(owner, r1=2, r2=1), rollout(RolloutPhase.PROGRESSING), stateful=stateful)
    assert found == (Held(3, owner) if has_it else None)


def test_the_engines_autoscaler_has_it_until_it_is_gone() -> None:
    """Through the beginning of a rollout too, so that no count jumps; not with a pin, at zero, or beside another."""
    for phase in RolloutPhase:
        assert held(seen(autoscaler="r1", r1=4, r2=0), rollout(phase)) == Held(4, HPA, delegated=True)
    assert held(seen(autoscaler="r2", r2=4), rollout(), pinned=True) is None
    assert held(seen(KUBECTL, autoscaler="r2", r2=0), rollout()) == Held(0, KUBECTL)
    assert held(seen(KEDA, autoscaler="r2", r2=4), rollout()) == Held(4, KEDA)


def test_a_count_that_is_held_goes_before_a_pin_and_bounds_and_is_asked_for_no_more() -> None:
    """And the reason says who."""
    whose = Held(12, KUBECTL)
    decision, _ = decide("web", RULES, Resources(), (), 3, Signals(), ScalingHistory(), Pin(2), 0.0, whose)
    assert (decision.count, decision.capped_by, decision.due_at) == (12, "owner", None)
    assert decision.reason == "set by hand to 12 by kubectl"
    away = Held(3, replace(HPA, trouble="FailedGetResourceMetric: no metrics"), delegated=True)
    decision, _ = decide("web", RULES, Resources(), (), 3, Signals(), ScalingHistory(), None, 0.0, away)
    assert decision.reason == (
        "set to 3 by HPA web, which can't tell how many there should be: FailedGetResourceMetric: no metrics"
    )


def test_what_was_asked_for_meanwhile_counts_once_it_is_given_back() -> None:
    """The windows of recent recommendations went on; without them it would be kept for their time."""
    rules, history = Rules(min=1, max=8), ScalingHistory()
    for at in range(0, 400, 10):
        _, history = decide("web", rules, Resources(), (), 6, Signals(), history, None, float(at), Held(6, KUBECTL))
    after, without = (
        decide("web", rules, Resources(), (), 6, Signals(), known, None, 400.0)[0]
        for known in (history, ScalingHistory())
    )
    assert (after.count, without.count) == (1, 6)


# What is done about it.


def replica(revision: str, number: int) -> Replica:
    return Replica(
        f"web-{number}", "web", revision, Phase.RUNNING, ready=True, host="10.0.0.1", port=80, started_at=0, ready_at=0
    )


def step(observed: AgentObserved, **wanted: Any) -> Step:
    template = template_of(fleet("native", **CPU), "web", {})
    wish = Wanted("web", "r2", **{"template": template, "count": 2, "now": 100.0, **wanted})
    return reconcile(wish, observed, leaving=frozenset(), left=frozenset(), healthy=2, chooses_victims=True)


def test_at_rest_the_count_is_handed_over_and_told_again_to_a_new_controller() -> None:
    """Once; said of a new generation, the rules may be others."""
    two = tuple(replica("r2", number) for number in range(2))
    rest = AgentObserved("web", {"r2": 2}, two)
    hand_over = Autoscale("web", "r2", RULES)
    assert step(rest, autoscale=RULES).actions == (hand_over,)
    handed = replace(rest, autoscaler=Autoscaler("r2", HPA))
    assert step(handed, autoscale=RULES).actions == () and step(handed, autoscale=RULES).settled
    told = step(handed, autoscale=RULES, ensure=True)
    assert told.actions[1:] == (hand_over,) and isinstance(told.actions[0], EnsureRevision) and told.settled


def test_nobody_sets_a_count_until_the_autoscaler_is_gone() -> None:
    """Neither of the old version nor of the new one; who serves goes on serving."""
    two = tuple(replica("r1", number) for number in range(2))
    observed = AgentObserved("web", {"r1": 2, "r2": 0}, two, autoscaler=Autoscaler("r1", HPA))
    taken = step(observed, stable="r1")
    assert (taken.actions, taken.serving, taken.settled) == ((Autoscale("web"),), two, False)
    assert Scale("web", "r2", 1) in step(replace(observed, autoscaler=None), stable="r1").actions


def test_a_count_that_is_taken_from_somebody_is_set_though_it_is_the_same() -> None:
    """Else he would have it again after a restart of the controller; and it is left alone while he has it."""
    two = tuple(replica("r2", number) for number in range(2))
    observed = AgentObserved("web", {"r2": 2}, two, owners={"r2": KUBECTL})
    assert step(observed).actions == ()
    assert step(observed, claims=True).actions == (Scale("web", "r2", 2, taken_from=KUBECTL),)


def test_from_whom_a_count_is_taken_is_said() -> None:
    """While a version takes over, of each that changes; a stateful agent has one count for all its revisions."""
    two = tuple(replica("r1", number) for number in range(2))
    observed = AgentObserved("web", {"r1": 2, "r2": 0}, two, owners={"r1": KUBECTL})
    assert Scale("web", "r2", 1) in step(observed, stable="r1").actions
    moved = replace(observed, counts={"r1": 2, "r2": 2}, replicas=tuple(replica("r2", number) for number in range(2)))
    assert Scale("web", "r1", 0, taken_from=KUBECTL) in step(moved).actions
    stateful = replace(observed, counts={"r1": 1, "r2": 0}, replicas=())
    template = replace(template_of(fleet("native", **CPU), "web", {}), stateful=True)
    assert Scale("web", "r2", 1, taken_from=KUBECTL) in step(stateful, template=template).actions


# What an HPA can do.


def fleet(autoscaler: str, **scale: Any) -> Fleet:
    agent = {"command": "serve", "port": 80, "resources": {"cpu": 1, "memory": "1Gi"}, "scale": scale}
    options = {"engine": "kubernetes", "kubernetes": {"autoscaler": autoscaler}}
    return Fleet.model_validate({"fleet": "f", "agents": {"web": agent}, **options})


CPU = {"min": 1, "max": 4, "target": {"cpu": "50%"}}


@pytest.mark.parametrize(
    ("scale", "reason"),
    [
        (CPU, ""),
        ({**CPU, "target": {"memory": "80%", "cpu": "50%"}}, ""),
        ({**CPU, "behavior": {"scale_up": {"stabilization_window": "1m"}}}, ""),
        ({**CPU, "min": 0}, "min 0"),
        ({**CPU, "target": {"cpu": "50%", "p95": "1s", "concurrency": 2}}, "target concurrency and no target p95"),
        ({**CPU, "behavior": {"scale_down": {"tolerance": 0.2}}}, "tolerance"),
        ({"min": 1, "max": 4, "cron": [{"start": "0 8 * * *", "end": "0 9 * * *", "replicas": 2}]}, "cron"),
    ],
)
def test_who_can_be_handed_over(scale: dict[str, Any], reason: str) -> None:
    """CPU and memory alone; of all others it is said why not."""
    native = fleet("native", **scale)
    assert is_native(native, native.agents["web"]) is (not reason)
    assert scaled_by_shoal(native) == ({"web": reason} if reason else {})


@pytest.mark.parametrize(
    ("autoscaler", "scale"), [("shoal", CPU), ("native", {"min": 2, "max": 2}), ("native", {"max": 3})]
)
def test_nothing_is_handed_over_unasked_or_where_nothing_varies(autoscaler: str, scale: dict[str, Any]) -> None:
    """And nothing is said of it."""
    asked = fleet(autoscaler, **scale)
    assert not is_native(asked, asked.agents["web"]) and scaled_by_shoal(asked) == {}
