"""The memory engine: time is a value, so every rule is shown at its instant."""

import time

import pytest

from shoal.core.action import EnsureRevision, Remove, RunJob, Scale
from shoal.core.observed import AgentObserved, Phase
from shoal.core.template import Template
from shoal.engines.memory import Behaviour, MemoryEngine, MemoryPlatform
from shoal.errors import EngineError, EngineUnavailable, NotFound
from shoal.spec.model import Agent, Fleet, Health, Kind, Placement, Resources


class Clock:
    """Epoch seconds that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def template(agent: str = "a", *, stateful: bool = False) -> Template:
    return Template(
        agent=agent, kind=Kind.SERVICE, image=None, command=("x",), working_dir=None, environment={}, port=8000,
        protocol="http", health=Health(), resources=Resources(), placement=Placement(), stateful=stateful, volumes=(),
        secrets=(), calls=(), queue=None, publishes=(), stop_grace_period_s=10.0,
    )  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(clock: Clock) -> MemoryEngine:
    return MemoryEngine(clock)


async def scaled(engine: MemoryEngine, count: int, *, revision: str = "r1", stateful: bool = False) -> AgentObserved:
    failures = await engine.act(
        [
            EnsureRevision("a", revision, template(stateful=stateful)),
            Scale("a", revision, count),
        ]
    )
    assert failures == ()
    return await observed(engine)


async def observed(engine: MemoryEngine) -> AgentObserved:
    return (await engine.observe()).agents["a"]


async def test_a_replica_is_pending_then_runs_then_is_ready(clock: Clock, engine: MemoryEngine) -> None:
    """Each step happens at its own instant, however late somebody looks."""
    engine.behave("a", Behaviour(start_s=1, ready_s=2))
    view = await scaled(engine, 1)
    assert [replica.phase for replica in view.replicas] == [Phase.PENDING]
    clock.now += 1
    (replica,) = (await observed(engine)).replicas
    assert (replica.phase, replica.ready, replica.started_at) == (Phase.RUNNING, False, 1001.0)
    clock.now += 100
    (replica,) = (await observed(engine)).replicas
    assert (replica.ready, replica.ready_at) == (True, 1003.0)


async def test_the_same_object_for_an_agent_of_which_nothing_changed(engine: MemoryEngine) -> None:
    """Control compares identities."""
    first = await scaled(engine, 2)
    await engine.act([EnsureRevision("b", "r1", template("b")), Scale("b", "r1", 1)])
    assert await observed(engine) is first
    await engine.act([Scale("a", "r1", 2), EnsureRevision("a", "r1", template())])
    assert await observed(engine) is first


async def test_scaling_down_takes_the_named_victims(engine: MemoryEngine) -> None:
    """The engine chooses only when nobody else did; then it takes the newest."""
    view = await scaled(engine, 3)
    first, second, _ = (replica.id for replica in view.replicas)
    await engine.act([Scale("a", "r1", 2, (first,))])
    assert first not in {replica.id for replica in (await observed(engine)).replicas}
    await engine.act([Scale("a", "r1", 1)])
    assert [replica.id for replica in (await observed(engine)).replicas] == [second]


async def test_a_scale_said_twice_is_done_once(engine: MemoryEngine) -> None:
    """Victims that are gone are not replaced by other victims."""
    view = await scaled(engine, 3)
    action = Scale("a", "r1", 2, (view.replicas[0].id,))
    await engine.act([action])
    await engine.act([action])
    assert len((await observed(engine)).replicas) == 2


async def test_stopping_takes_its_time(clock: Clock, engine: MemoryEngine) -> None:
    """A victim is STOPPING and not ready until it is gone."""
    engine.behave("a", Behaviour(stop_s=5))
    await scaled(engine, 1)
    view = await scaled(engine, 0)
    assert [(replica.phase, replica.ready) for replica in view.replicas] == [(Phase.STOPPING, False)]
    clock.now += 5
    assert (await observed(engine)).replicas == ()


async def test_a_crash_backs_off_longer_each_time(clock: Clock, engine: MemoryEngine) -> None:
    """0.5 s, then 1 s; the id stays, the restarts count."""
    view = await scaled(engine, 1)
    replica = view.replicas[0].id
    for restarts, wait_s in ((1, 0.5), (2, 1.0)):
        engine.crash(replica, 3, last_log=("boom",))
        (value,) = (await observed(engine)).replicas
        assert (value.phase, value.exit_code, value.restarts, value.ready) == (Phase.BACKOFF, 3, restarts, False)
        assert value.reason == "exit code 3"
        assert value.last_log == ("boom",)
        assert engine.next_due == pytest.approx(clock.now + wait_s)
        clock.now += wait_s
        (value,) = (await observed(engine)).replicas
        assert (value.id, value.phase, value.ready) == (replica, Phase.RUNNING, True)


async def test_a_crash_loop_by_behaviour(clock: Clock, engine: MemoryEngine) -> None:
    """A replica that is told to die early never becomes ready before that."""
    engine.behave("a", Behaviour(ready_s=2, crash_after_s=1))
    await scaled(engine, 1)
    clock.now += 1
    (value,) = (await observed(engine)).replicas
    assert (value.phase, value.restarts, value.ready_at) == (Phase.BACKOFF, 1, None)
    clock.now += 10
    (value,) = (await observed(engine)).replicas
    assert value.restarts == 4  # at 1, 2.5, 4.5 and 7.5 s


async def test_never_ready_and_flips(engine: MemoryEngine) -> None:
    """Readiness is a fact of its own."""
    engine.behave("a", Behaviour(never_ready=True))
    view = await scaled(engine, 1)
    assert (view.replicas[0].phase, view.replicas[0].ready) == (Phase.RUNNING, False)
    engine.set_ready(view.replicas[0].id, True)
    assert (await observed(engine)).replicas[0].ready
    engine.set_ready(view.replicas[0].id, False, "health check failed")
    assert (await observed(engine)).replicas[0].reason == "health check failed"


async def test_an_ordinal_has_one_holder(clock: Clock, engine: MemoryEngine) -> None:
    """The next revision's holder waits until the one before it is gone, and takes the same ordinal."""
    engine.behave("a", Behaviour(stop_s=5))
    view = await scaled(engine, 3, stateful=True)
    assert [replica.ordinal for replica in view.replicas] == [0, 1, 2]
    await engine.act([Scale("a", "r1", 2)])
    view = await scaled(engine, 1, revision="r2", stateful=True)
    old, new = (replica for replica in view.replicas if replica.ordinal == 2)
    assert (old.phase, new.phase) == (Phase.STOPPING, Phase.PENDING)
    assert new.reason == f"waits for {old.id} to give up ordinal 2"
    clock.now += 5
    (new,) = (replica for replica in (await observed(engine)).replicas if replica.ordinal == 2)
    assert (new.revision, new.phase) == ("r2", Phase.RUNNING)
    assert (await observed(engine)).counts == {"r1": 2, "r2": 1}


async def test_a_waiting_holder_that_is_stopped_wakes_nobody(clock: Clock, engine: MemoryEngine) -> None:
    """What stops goes on stopping when the one that waited for it goes first."""
    engine.behave("a", Behaviour(stop_s=5))
    await scaled(engine, 1, stateful=True)
    await scaled(engine, 0, stateful=True)
    await scaled(engine, 1, revision="r2", stateful=True)
    view = await scaled(engine, 0, revision="r2", stateful=True)
    assert [replica.phase for replica in view.replicas] == [Phase.STOPPING]
    clock.now += 5
    assert (await observed(engine)).replicas == ()


async def test_a_lost_replica_is_replaced(engine: MemoryEngine) -> None:
    """A node that dies takes the id with it."""
    view = await scaled(engine, 1)
    engine.lose(view.replicas[0].id)
    (other,) = (await observed(engine)).replicas
    assert other.id != view.replicas[0].id
    with pytest.raises(NotFound):
        engine.lose(view.replicas[0].id)


async def test_a_removed_agent_is_gone_once_its_last_replica_is(clock: Clock, engine: MemoryEngine) -> None:
    """Removing what is not there is no failure."""
    engine.behave("a", Behaviour(stop_s=1))
    await scaled(engine, 1)
    assert await engine.act([Remove("a"), Remove("never")]) == ()
    assert (await observed(engine)).counts == {}
    clock.now += 1
    assert "a" not in (await engine.observe()).agents


async def test_a_removed_revision_leaves_the_others(engine: MemoryEngine) -> None:
    """Only its own replicas go."""
    await scaled(engine, 1)
    await scaled(engine, 2, revision="r2")
    await engine.act([Remove("a", "r1")])
    view = await observed(engine)
    assert view.counts == {"r2": 2}
    assert {replica.revision for replica in view.replicas} == {"r2"}


async def test_a_run_happens_once_for_an_id(clock: Clock, engine: MemoryEngine) -> None:
    """Said again, even after its end, nothing happens."""
    await scaled(engine, 0)
    job = RunJob("a", "r1", "a-1")
    await engine.act([job, job])
    (run,) = (await observed(engine)).runs
    assert (run.phase, run.attempt) == (Phase.RUNNING, 1)
    clock.now += 1
    await engine.act([job])
    (run,) = (await observed(engine)).runs
    assert (run.phase, run.exit_code, run.finished_at) == (Phase.SUCCEEDED, 0, 1001.0)


async def test_failed_attempts_are_repeated(clock: Clock, engine: MemoryEngine) -> None:
    """`retries` more attempts, with a wait between them."""
    engine.behave("a", Behaviour(job_s=None))
    await scaled(engine, 0)
    await engine.act([RunJob("a", "r1", "a-1", retries=1)])
    engine.finish_run("a", "a-1", 7)
    assert (await observed(engine)).runs[0].phase is Phase.BACKOFF
    clock.now += 0.5
    assert [(run.phase, run.attempt) for run in (await observed(engine)).runs] == [(Phase.RUNNING, 2)]
    engine.finish_run("a", "a-1", 7)
    (run,) = (await observed(engine)).runs
    assert (run.phase, run.exit_code, run.reason) == (Phase.FAILED, 7, "exit code 7")


async def test_a_run_that_lasts_too_long_fails(clock: Clock, engine: MemoryEngine) -> None:
    """The timeout is an attempt's."""
    engine.behave("a", Behaviour(job_s=100))
    await scaled(engine, 0)
    await engine.act([RunJob("a", "r1", "a-1", timeout_s=5)])
    clock.now += 50
    (run,) = (await observed(engine)).runs
    assert (run.phase, run.finished_at, run.reason) == (Phase.FAILED, 1005.0, "timed out after 5s")


async def test_the_last_twenty_runs_are_kept(clock: Clock, engine: MemoryEngine) -> None:
    """And an id that is no longer shown still doesn't run again."""
    await scaled(engine, 0)
    for number in range(25):
        await engine.act([RunJob("a", "r1", f"a-{number}")])
        clock.now += 2
    await engine.act([RunJob("a", "r1", "a-0")])
    assert [run.run_id for run in (await observed(engine)).runs] == [f"a-{number}" for number in range(5, 25)]


async def test_failures_are_told_and_the_rest_is_done(engine: MemoryEngine) -> None:
    """One action that fails keeps no other from being carried out."""
    engine.fail_next("no room", lambda action: isinstance(action, Scale))
    actions = [EnsureRevision("a", "r1", template()), Scale("a", "r1", 1), Scale("a", "r1", 2), Scale("b", "r1", 1)]
    failures = await engine.act(actions)
    assert [(failure.action, failure.reason) for failure in failures] == [
        (actions[1], "no room"),
        (actions[3], "agents.b: not known; ensure a revision first"),
    ]
    assert (await observed(engine)).counts == {"r1": 2}


async def test_unavailable_and_incomplete(engine: MemoryEngine) -> None:
    """As an engine that is away, and one that could not look everywhere."""
    engine.incomplete = True
    assert not (await engine.observe()).complete
    engine.unavailable = "down"
    for call in (engine.observe(), engine.act([]), engine.usage()):
        with pytest.raises(EngineUnavailable, match="down"):
            await call


async def test_changes_yield_what_happened_since_the_call(clock: Clock, engine: MemoryEngine) -> None:
    """Not lost if it happens before anybody waits."""
    engine.behave("a", Behaviour(start_s=1))
    changes = engine.changes()
    await scaled(engine, 1)
    await anext(changes)
    clock.now += 1
    engine.tick()
    await anext(changes)
    assert (await observed(engine)).replicas[0].ready


async def test_the_platform_keeps_ports(engine: MemoryEngine) -> None:
    """An agent's address stays while others come and go."""
    platform = MemoryPlatform()
    agents = {"a": Agent(port=1, calls=("b",)), "b": Agent(port=1, queue="q", calls=("a",))}
    first = await platform.ensure(Fleet(fleet="f", agents=agents))
    second = await platform.ensure(Fleet(fleet="f", agents={"b": agents["b"]}))
    assert first.caller_ports["b"] == second.caller_ports["b"]
    assert set(first.broker_url) == {"b"}
    platform.fails = "no room"
    with pytest.raises(EngineError, match="no room"):
        await platform.ensure(Fleet(fleet="f", agents=agents))


async def test_a_pass_over_a_thousand_agents_is_quick(clock: Clock, engine: MemoryEngine) -> None:
    """1,000 agents, 10,000 replicas, 5 % of the agents acted on: milliseconds (the bound is for a busy machine)."""
    names = [f"agent-{number}" for number in range(1000)]
    await engine.act([EnsureRevision(name, "r1", template(name)) for name in names])
    await engine.act([Scale(name, "r1", 10) for name in names])
    await engine.observe()
    best_s = float("inf")
    for count in (11, 10, 12, 10):
        started = time.perf_counter()
        await engine.act([Scale(name, "r1", count) for name in names[::20]])
        await engine.observe()
        best_s = min(best_s, time.perf_counter() - started)
    assert best_s < 0.1
