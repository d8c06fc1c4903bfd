"""The steps of one agent, as values."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shoal.core.action import EnsureRevision, Remove, Scale
from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.core.reconcile import Wanted, choose_victims, reconcile, reconcile_removed
from shoal.core.template import Template
from shoal.spec.model import Health, Kind, Placement, Resources, Update

NOTHING: frozenset[str] = frozenset()
AT_ONCE = Update(min_ready_time=0)


def template(kind: Kind = Kind.SERVICE, *, stateful: bool = False) -> Template:
    return Template(
        agent="a", kind=kind, image=None, command=("x",), working_dir=None, environment={},
        port=80 if kind is Kind.SERVICE else None, protocol="http", health=Health(), resources=Resources(),
        placement=Placement(), stateful=stateful, volumes=(), secrets=(), calls=(), queue=None, publishes=(),
        stop_grace_period_s=10.0,
    )  # fmt: skip


def wanted(count: int, revision: str = "new", kind: Kind = Kind.SERVICE, *, stateful: bool = False) -> Wanted:
    return Wanted("a", revision, template(kind, stateful=stateful), count, update=AT_ONCE)


def replica(
    name: str, revision: str = "new", *, ready: bool = True, created_at: float = 0.0, ordinal: int | None = None
):
    return Replica(
        name, "a", revision, Phase.RUNNING, ready, "127.0.0.1", 1, created_at=created_at,
        started_at=created_at, ready_at=created_at if ready else None, ordinal=ordinal,
    )  # fmt: skip


def seen(*replicas: Replica) -> AgentObserved:
    counts: dict[str, int] = {}
    for each in replicas:
        if each.phase is not Phase.STOPPING:
            counts[each.revision] = counts.get(each.revision, 0) + 1
    return AgentObserved("a", counts, replicas)


def step(
    want: Wanted, there: AgentObserved, *, leaving=NOTHING, left=NOTHING, healthy: int | None = None, chooses=True
):
    return reconcile(want, there, leaving=leaving, left=left, healthy=healthy, chooses_victims=chooses)


def test_new_agent_is_made_known_before_it_is_scaled() -> None:
    """A revision that the engine does not know is ensured first, then scaled."""
    actions = step(wanted(2), AgentObserved("a")).actions
    assert [type(action) for action in actions] == [EnsureRevision, Scale]
    assert actions[1] == Scale("a", "new", 2)


def test_nothing_to_do_is_settled() -> None:
    """At the wished state there is no action, and the agent is at rest once the gateway sees it healthy."""
    there = seen(replica("r0"), replica("r1"))
    assert step(wanted(2), there, healthy=2).settled
    unseen = step(wanted(2), there, healthy=1)
    assert unseen.actions == () and not unseen.settled


def test_scale_down_waits_for_the_gateway() -> None:
    """Who takes requests is stopped only once it left the gateway and that was acknowledged."""
    there = seen(replica("r0"), replica("r1", created_at=5.0))
    first = step(wanted(1), there, healthy=2)
    assert first.actions == () and first.leaving == {"r1"}
    assert [r.id for r in first.serving] == ["r0"]
    second = step(wanted(1), there, leaving=first.leaving, left=frozenset({"r1"}), healthy=1)
    assert second.actions == (Scale("a", "new", 1, ("r1",)),)


def test_one_that_was_told_to_end_is_counted_once() -> None:
    """An engine notes a count before it comes to ending anybody: nobody else goes for that, and who is to go is sent
    nothing."""
    out = frozenset({"r1"})
    there = replace(seen(replica("r0"), replica("r1", created_at=5.0)), counts={"new": 1})
    again = step(wanted(1), there, leaving=out, left=out, healthy=1)
    assert (again.actions, again.leaving, [r.id for r in again.serving]) == ((), out, ["r0"])
    assert not again.settled
    less = step(wanted(0), there, leaving=out, left=out, healthy=1)
    assert (less.actions, less.leaving) == ((), {"r0", "r1"})
    both = step(wanted(0), there, leaving=less.leaving, left=less.leaving, healthy=0)
    assert both.actions == (Scale("a", "new", 0, ("r1", "r0")),)


def test_a_rollout_counts_one_that_was_told_to_end_once() -> None:
    """Of two old ones one is to go, and is still there: the other one serves on until the second new one does. So it is
    where the engine chooses who goes."""
    for out, chooses in ((frozenset({"b"}), True), (NOTHING, False)):
        old = replica("a", "old"), replica("b", "old", created_at=5.0)
        there = replace(seen(replica("n0"), *old), counts={"new": 1, "old": 1})
        found = step(wanted(2), there, leaving=out, left=out, healthy=3 - len(out), chooses=chooses)
        assert found.actions == (Scale("a", "new", 2),) and found.leaving == out


def test_who_never_served_goes_at_once_and_first() -> None:
    """A replica that is not ready yet needs no drain, and goes before one that serves."""
    there = seen(replica("r0"), replica("r1", ready=False))
    assert step(wanted(1), there, healthy=1).actions == (Scale("a", "new", 1, ("r1",)),)


def test_engine_that_chooses_is_only_told_the_count() -> None:
    """Where the engine takes whom it likes, the count goes down at once and nobody is named."""
    there = seen(replica("r0"), replica("r1"))
    done = step(wanted(1), there, healthy=2, chooses=False)
    assert done.actions == (Scale("a", "new", 1),) and done.leaving == NOTHING


def test_engine_that_chooses_is_drained_where_there_is_no_choice() -> None:
    """Where all of a revision go, or identities from the highest down, the gateway is told first on every engine; and
    nobody is stopped before all of them left, as the engine might take another one."""
    all_go = seen(replica("r0"), replica("r1"))
    first = step(wanted(0), all_go, chooses=False)
    assert first.actions == () and first.leaving == {"r0", "r1"}
    half = step(wanted(0), all_go, leaving=first.leaving, left=frozenset({"r0"}), chooses=False)
    assert half.actions == () and half.leaving == {"r0", "r1"}
    gone = step(wanted(0), all_go, leaving=first.leaving, left=first.leaving, chooses=False)
    assert gone.actions == (Scale("a", "new", 0, ("r0", "r1")),)
    identities = seen(*(replica(f"r{i}", ordinal=i) for i in range(2)))
    assert step(wanted(1, stateful=True), identities, healthy=2, chooses=False).leaving == {"r1"}


def test_scale_up_again_takes_back_who_was_leaving() -> None:
    """A drain that is not needed any more ends: the replica serves again."""
    there = seen(replica("r0"), replica("r1"))
    again = step(wanted(2), there, leaving=frozenset({"r1"}), healthy=1)
    assert again.actions == () and {r.id for r in again.serving} == {"r0", "r1"}


def test_rolling_starts_new_before_old_leaves() -> None:
    """One of one: the old one serves until the gateway sees the new one healthy."""
    old = replica("o0", "old")
    start = step(wanted(1), seen(old), healthy=1)
    assert Scale("a", "new", 1) in start.actions and start.leaving == NOTHING
    starting = step(wanted(1), seen(old, replica("n0", ready=False)), healthy=1)
    assert starting.actions == () and [r.id for r in starting.serving] == ["o0"]
    unseen = step(wanted(1), seen(old, replica("n0")), healthy=1)
    assert unseen.leaving == NOTHING
    both = step(wanted(1), seen(old, replica("n0")), healthy=2)
    assert both.leaving == {"o0"} and [r.id for r in both.serving] == ["n0"]
    # The gateway now counts one healthy endpoint: that must not bring the old one back.
    later = step(wanted(1), seen(old, replica("n0")), leaving=both.leaving, left=frozenset({"o0"}), healthy=1)
    assert Scale("a", "old", 0, ("o0",)) in later.actions


def test_a_version_that_never_gets_ready_takes_nothing_away() -> None:
    """While the new revision crashes, every old replica stays."""
    olds = [replica(f"o{i}", "old") for i in range(4)]
    crashing = replace(replica("n0", ready=False), phase=Phase.BACKOFF, restarts=7)
    done = step(wanted(4), seen(*olds, crashing), healthy=4)
    assert done.actions == () and len(done.serving) == 4 and not done.settled


def test_old_revision_is_forgotten_when_empty() -> None:
    """A revision without replicas that is not wanted is removed."""
    there = AgentObserved("a", {"new": 1, "old": 0}, (replica("r0"),))
    assert step(wanted(1), there, healthy=1).actions == (Remove("a", "old"),)


def test_stateful_replaces_stop_first_from_the_highest_ordinal() -> None:
    """Never two holders: the highest ordinal leaves, ends, and only then its successor is made."""
    olds = [replica(f"o{i}", "old", ordinal=i) for i in range(2)]
    want = wanted(2, stateful=True)
    first = step(want, seen(*olds), healthy=2)
    assert first.leaving == {"o1"} and not any(isinstance(a, Scale) for a in first.actions)
    second = step(want, seen(*olds), leaving=first.leaving, left=first.leaving, healthy=1)
    assert Scale("a", "old", 1, ("o1",)) in second.actions
    ending = replace(olds[1], phase=Phase.STOPPING)
    third = step(want, seen(olds[0], ending), healthy=1)
    assert not any(isinstance(a, Scale) and a.count > 0 and a.revision == "new" for a in third.actions)
    fourth = step(want, seen(olds[0]), healthy=1)
    assert Scale("a", "new", 1) in fourth.actions
    fifth = step(want, seen(olds[0], replica("n1", ready=False, ordinal=1)), healthy=1)
    assert fifth.leaving == NOTHING and fifth.actions == ()


def test_stateful_waits_for_who_is_only_counted_yet() -> None:
    """An engine may give an identity to the new revision by itself: it has replaced nobody before its replica is ready,
    though the one that is there is."""
    there = [replica("o0", "old", ordinal=0), replica("n2", ordinal=2)]
    between = replace(seen(*there), counts={"old": 1, "new": 2})
    found = step(wanted(3, stateful=True), between, healthy=2)
    assert (found.leaving, found.actions) == (NOTHING, ())
    made = replace(seen(*there, replica("n1", ordinal=1)), counts={"old": 1, "new": 2})
    assert step(wanted(3, stateful=True), made, healthy=3).leaving == {"o0"}


def test_removed_agent_is_drained_first() -> None:
    """An agent that left the fleet goes out of the gateway before it is stopped."""
    there = seen(replica("r0"))
    first = reconcile_removed("a", there, leaving=NOTHING, left=NOTHING)
    assert first.actions == () and first.leaving == {"r0"} and not first.settled
    second = reconcile_removed("a", there, leaving=first.leaving, left=first.leaving)
    assert second.actions == (Remove("a"),)
    assert reconcile_removed("a", AgentObserved("a"), leaving=NOTHING, left=NOTHING).settled


REPLICAS = st.lists(
    st.builds(
        replica,
        st.uuids().map(str),
        st.sampled_from(["new", "old", "older"]),
        ready=st.booleans(),
        created_at=st.floats(0, 100),
    ),
    max_size=12,
)


@given(REPLICAS, st.integers(1, 8), st.integers(0, 12))
def test_serving_never_falls_below_what_is_wished_while_rolling(replicas, count, healthy) -> None:
    """A step takes ready replicas out only as far as at least `count` of them go on serving."""
    there = seen(*replicas)
    before = sum(1 for r in replicas if r.ready)
    after = len(step(wanted(count), there, healthy=healthy).serving)
    assert after >= min(before, count)


@given(REPLICAS, st.integers(0, 8), st.integers(0, 12))
def test_a_step_said_twice_is_the_same(replicas, count, healthy) -> None:
    """Equal input gives an equal step, and what was leaving stays leaving."""
    there = seen(*replicas)
    first = step(wanted(count), there, healthy=healthy)
    assert step(wanted(count), there, healthy=healthy) == first
    again = step(wanted(count), there, leaving=first.leaving, healthy=healthy)
    assert first.leaving <= again.leaving


@given(REPLICAS, st.integers(0, 12))
def test_victims_are_as_many_as_asked(replicas, number) -> None:
    """As many go as asked, each once, and nobody who serves while one that does not could go."""
    victims = choose_victims(replicas, number, NOTHING, stateful=False)
    assert len(victims) == min(number, len(replicas)) == len({v.id for v in victims})
    staying = [r for r in replicas if r not in victims]
    assert not (any(v.ready for v in victims) and any(not r.ready for r in staying))


def test_stateful_scales_down_only_what_leaves_identities_that_work() -> None:
    """As a StatefulSet: while an identity that stays does not work, the higher ones that do go on serving."""
    there = seen(replica("r0", ready=False, ordinal=0), replica("r1", ordinal=1), replica("r2", ordinal=2))
    kept = step(wanted(1, stateful=True), there, healthy=2)
    assert kept.actions == () and kept.leaving == NOTHING and len(kept.serving) == 2
    assert kept.waiting_for == "the identities that stay to get ready"
    all_ready = seen(*(replica(f"r{ordinal}", ordinal=ordinal) for ordinal in range(3)))
    assert step(wanted(1, stateful=True), all_ready, healthy=3).leaving == {"r1", "r2"}
    assert step(wanted(0, stateful=True), there, healthy=2).leaving == {"r0", "r1", "r2"}


def test_capacity_from_the_old_revision_stays_within_the_surge() -> None:
    """New replicas that have not proven themselves count too: nothing is added beside them above the surge."""
    there = seen(replica("old", "old"), replica("n1", ready=False), replica("n2", ready=False))
    scales = [
        action
        for action in step(replace(wanted(2), stable="old"), there, healthy=1).actions
        if isinstance(action, Scale)
    ]
    counts = {**there.counts, **{action.revision: action.count for action in scales}}
    assert sum(counts.values()) <= 3 and counts["old"] == 1


def test_who_works_and_has_not_proven_itself_makes_no_room_for_the_old_revision() -> None:
    """All are new and ready, but since a moment ago by a clock that was set back: none of them goes, and none of the
    old revision comes back. For those of them that do not work it does."""
    want = replace(wanted(3), stable="old", update=Update(min_ready_time=60), now=1.0)
    replicas = tuple(replica(f"n{number}") for number in range(3))
    there = AgentObserved("a", {"new": 3, "old": 0}, replicas)
    kept = step(want, there, healthy=3)
    assert kept.actions == () and kept.leaving == NOTHING and kept.due_at == 60.0
    broken = replace(there, replicas=(*replicas[:2], replace(replicas[2], ready=False)))
    assert step(want, broken, healthy=2).actions == (Scale("a", "old", 1),)
