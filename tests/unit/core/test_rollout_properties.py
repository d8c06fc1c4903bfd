"""What holds of every rollout, whatever happens on its way: capacity below, surge above, and an end."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shoal.core.rollout import RolloutPhase
from tests.unit.core.rollout_world import Version, World, least, most, service

SHARES = st.one_of(st.integers(0, 3), st.sampled_from(["0%", "10%", "25%", "50%", "100%"]))
UPDATES = st.fixed_dictionaries(
    {"max_surge": SHARES, "max_unavailable": SHARES, "min_ready_time": st.integers(0, 3)}
).filter(lambda update: update["max_surge"] not in (0, "0%") or update["max_unavailable"] not in (0, "0%"))
EVENTS = st.lists(
    st.tuples(
        st.integers(1, 25),  # steps before it
        st.one_of(
            st.tuples(st.just("scale"), st.integers(1, 9)),
            st.tuples(st.just("good"), st.integers(0, 6)),
            st.tuples(st.just("bad"), st.just(0)),
            st.tuples(st.just("crash"), st.integers(0, 20)),
        ),
    ),
    max_size=8,
)
LAGS = st.sampled_from([0, 1, 3])
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def settled(update: dict[str, object], count: int, lag_s: int = 0) -> World:
    world = World(service(**update), count, Version("v0"), lag_s=lag_s)
    for _ in range(20):
        if world.step().settled:
            return world
    raise AssertionError("the first version did not settle")


def checked_step(world: World) -> bool:
    """One step; nobody who works is taken out of service for want of whom less than what is due would serve, and no
    more than the surge allows is there."""
    before, total = len(world.serving()), world.total
    step = world.step()
    assert len(world.serving()) >= min(before, least(world), len(world.working())), step
    assert world.total <= max(total, most(world)), step
    return step.settled


def happen(world: World, number: int, event: tuple[str, int]) -> None:
    kind, value = event
    if kind == "scale":
        world.count = value
    elif kind in ("good", "bad"):
        world.change(Version(f"v{number}", value if kind == "good" else None))
    elif world.replicas:
        world.crash(sorted(world.replicas)[value % len(world.replicas)])


@given(UPDATES, st.integers(1, 9), EVENTS, LAGS)
@MANY
def test_capacity_and_surge_hold_whatever_happens(update, count, events, lag_s) -> None:
    """Scaled, superseded, broken or crashing half way: a step never takes away what is still needed."""
    world = settled(update, count, lag_s)
    for number, (pause, event) in enumerate(events, 1):
        for _ in range(pause):
            checked_step(world)
        happen(world, number, event)
    for _ in range(40):
        checked_step(world)


@given(UPDATES, st.integers(1, 9), EVENTS, st.integers(0, 6), LAGS)
@MANY
def test_a_good_version_gets_through_whatever_came_before(update, count, events, ready_s, lag_s) -> None:
    """The last version is good: in the end it alone is there, in full, and its rollout is complete."""
    world = settled(update, count, lag_s)
    for number, (pause, event) in enumerate(events, 1):
        for _ in range(pause):
            checked_step(world)
        happen(world, number, event)
    world.change(Version("last", ready_s))
    for _ in range(400):
        if checked_step(world):
            break
    assert {r.revision for r in world.replicas.values()} == {"last"} and len(world.replicas) == world.count
    assert world.rollout is not None and world.rollout.phase is RolloutPhase.COMPLETE


@given(UPDATES, st.integers(1, 9), st.integers(1, 9))
@MANY
def test_a_version_that_never_gets_ready_is_given_up(update, count, later) -> None:
    """After the deadline the version before serves in full again, also where the count has changed meanwhile; and
    nothing moves any more."""
    world = settled(update, count)
    world.change(Version("bad", None))
    for _ in range(10):
        checked_step(world)
    world.count = later
    for _ in range(80):
        checked_step(world)
    assert world.rollout is not None and world.rollout.phase is RolloutPhase.FAILED
    assert {r.revision for r in world.replicas.values()} == {"v0"} and len(world.serving()) == later
    assert world.step().actions == ()


@given(UPDATES, st.integers(1, 9), st.integers(1, 9))
@MANY
def test_more_demand_is_met_while_a_bad_version_is_tried(update, count, later) -> None:
    """Capacity that is asked for in the middle comes from what is proven, before the bad version is given up."""
    world = settled(update, count)
    world.change(Version("bad", None))
    for _ in range(4):
        checked_step(world)
    world.count = later
    for _ in range(8):
        checked_step(world)
    assert world.rollout is not None and world.rollout.phase is RolloutPhase.PROGRESSING
    assert len(world.serving()) >= least(world)


@given(st.integers(1, 6), st.sampled_from([None, 0, 3]), st.integers(0, 2))
@MANY
def test_stateful_agents_miss_one_at_most(count, ready_s, min_ready) -> None:
    """One identity is replaced at a time, never held twice; a bad version is given up for the one before."""
    agent = service(min_ready_time=min_ready).model_copy(update={"stateful": True})
    world = World(agent, count, Version("v0"))
    for _ in range(40):
        if world.step().settled:
            break
    assume(len(world.serving()) == count)
    world.change(Version("v1", ready_s))
    for _ in range(150):
        world.step()
        assert len(world.serving()) >= count - 1
        held = [r.ordinal for r in world.replicas.values()]
        assert len(held) == len(set(held))
    assert len(world.serving()) == count
    assert {r.revision for r in world.replicas.values()} == {"v0" if ready_s is None else "v1"}
