"""What holds on every engine: one set of cases, run on each by a subclass that says what `engine` is.

A replica of the agents here becomes ready soon; one whose command is CRASHES ends by itself.
"""

import asyncio
import sys
from typing import Any

from local_fleet import SLEEPER, all_ready, in_phase, ready, template, until, wanted

from shoal.core.action import EnsureRevision, Remove, RunJob, Scale
from shoal.core.observed import Phase

CRASHES = (sys.executable, "-I", "-S", "-c", "raise SystemExit(3)")


class EngineContract:
    """The cases. `engine` is a fixture of the subclass."""

    async def test_a_revision_has_no_replica_until_it_is_scaled(self, engine: Any) -> None:
        """`EnsureRevision` makes it known."""
        assert await engine.act([EnsureRevision("a", "r1", template())]) == ()
        view = (await engine.observe()).agents["a"]
        assert (view.counts, view.replicas) == ({"r1": 0}, ())

    async def test_scaling_up_makes_replicas_that_become_ready(self, engine: Any) -> None:
        """Each with an id of its own, and times in their order."""
        await engine.act(wanted(template(), 3))
        replicas = await ready(engine, 3)
        assert len({replica.id for replica in replicas}) == 3
        for replica in replicas:
            assert (replica.agent, replica.revision, replica.phase) == ("a", "r1", Phase.RUNNING)
            assert replica.started_at is not None
            assert replica.ready_at is not None
            assert replica.created_at <= replica.started_at <= replica.ready_at

    async def test_said_twice_it_is_done_once(self, engine: Any) -> None:
        """And the agent's object stays the same."""
        await engine.act(wanted(template(), 2))
        await ready(engine, 2)
        before = (await engine.observe()).agents["a"]
        await engine.act(wanted(template(), 2))
        assert (await engine.observe()).agents["a"] is before

    async def test_the_named_victims_leave(self, engine: Any) -> None:
        """No others; told again, nobody leaves."""
        await engine.act(wanted(template(), 3))
        replicas = await ready(engine, 3)
        action = Scale("a", "r1", 2, (replicas[1].id,))
        await engine.act([action])
        view = await until(engine, "two are left", lambda view: len(view.replicas) == 2)
        await engine.act([action])
        assert [replica.id for replica in view.replicas] == [replicas[0].id, replicas[2].id]
        assert len((await engine.observe()).agents["a"].replicas) == 2

    async def test_an_id_is_not_used_twice(self, engine: Any) -> None:
        """Also when all are gone."""
        await engine.act(wanted(template(), 1))
        (first,) = await ready(engine, 1)
        await engine.act([Scale("a", "r1", 0)])
        await until(engine, "it is gone", lambda view: not view.replicas)
        await engine.act([Scale("a", "r1", 1)])
        (second,) = await ready(engine, 1)
        assert first.id != second.id

    async def test_two_revisions_side_by_side(self, engine: Any) -> None:
        """Removing one leaves the other alone."""
        await engine.act([*wanted(template(), 1), *wanted(template(), 2, "r2")])
        replicas = await ready(engine, 3)
        await engine.act([Remove("a", "r1")])
        view = await until(engine, "one revision is left", lambda view: len(view.replicas) == 2)
        assert view.counts == {"r2": 2}
        assert view.replicas == tuple(replica for replica in replicas if replica.revision == "r2")
        await engine.act([Remove("a", "r1")])
        assert (await engine.observe()).agents["a"] is view

    async def test_a_removed_agent_disappears(self, engine: Any) -> None:
        """Its id, its counts, its runs; removing what is not there is no failure."""
        await engine.act([*wanted(template(), 1), RunJob("a", "r1", "a-1")])
        assert await engine.act([Remove("a"), Remove("never"), Remove("a", "r9")]) == ()
        await until(engine, "it is gone", lambda view: not view.replicas and not view.runs)
        assert "a" not in (await engine.observe()).agents
        await engine.act(wanted(template(), 1))
        await ready(engine, 1)

    async def test_ordinals_are_dense(self, engine: Any) -> None:
        """The highest leaves first, the lowest free one comes next."""
        await engine.act(wanted(template(stateful=True), 3))
        replicas = await ready(engine, 3)
        assert {replica.ordinal for replica in replicas} == {0, 1, 2}
        await engine.act([Scale("a", "r1", 1)])
        view = await until(engine, "one is left", lambda view: len(view.replicas) == 1)
        assert view.replicas[0].ordinal == 0
        await engine.act([*wanted(template(stateful=True), 1, "r2")])
        await until(engine, "both are ready", all_ready(2))
        assert sorted(r.ordinal for r in (await engine.observe()).agents["a"].replicas) == [0, 1]

    async def test_a_crash_backs_off_and_keeps_the_id(self, engine: Any) -> None:
        """With the exit code, and the restarts counted."""
        await engine.act(wanted(template(CRASHES), 1))
        replica = await in_phase(engine, Phase.BACKOFF)
        assert (replica.exit_code, replica.ready) == (3, False)
        assert replica.reason.startswith("exit code 3")
        await until(engine, "it crashed again", lambda view: view.replicas[0].restarts >= 2)
        assert (await engine.observe()).agents["a"].replicas[0].id == replica.id

    async def test_a_job_runs_once_for_an_id(self, engine: Any) -> None:
        """However often it is said."""
        job = RunJob("a", "r1", "a-1")
        await engine.act([*wanted(template(("/bin/true",)), 0), job, job])
        view = await until(engine, "it succeeded", lambda view: [r.phase for r in view.runs] == [Phase.SUCCEEDED])
        await engine.act([job])
        assert (await engine.observe()).agents["a"].runs == view.runs
        assert (view.runs[0].attempt, view.runs[0].exit_code) == (1, 0)

    async def test_a_failing_job_is_repeated_and_then_failed(self, engine: Any) -> None:
        """`retries` more attempts."""
        await engine.act([*wanted(template(CRASHES), 0), RunJob("a", "r1", "a-1", retries=1)])
        view = await until(engine, "it failed", lambda view: [r.phase for r in view.runs] == [Phase.FAILED])
        assert (view.runs[0].attempt, view.runs[0].exit_code) == (2, 3)

    async def test_a_job_has_a_timeout(self, engine: Any) -> None:
        """Said in the reason."""
        await engine.act([*wanted(template(SLEEPER), 0), RunJob("a", "r1", "a-1", timeout_s=0.2)])
        view = await until(engine, "it failed", lambda view: [r.phase for r in view.runs] == [Phase.FAILED])
        assert view.runs[0].reason == "timed out after 0.2s"

    async def test_a_failure_is_told_and_the_rest_is_done(self, engine: Any) -> None:
        """Unknown revisions are failures by name."""
        unknown = Scale("a", "r9", 1)
        failures = await engine.act([*wanted(template(), 1), unknown, RunJob("a", "r9", "x"), Scale("b", "r1", 1)])
        assert [failure.action.revision for failure in failures] == ["r9", "r9", "r1"]
        assert failures[0].action == unknown
        assert "revision r9 is not known" in failures[0].reason
        await ready(engine, 1)

    async def test_changes_since_the_call_are_not_lost(self, engine: Any) -> None:
        """Also if they happen before anybody waits."""
        changes = engine.changes()
        await engine.act(wanted(template(), 1))
        assert await asyncio.wait_for(anext(changes), 20) is None
        await changes.aclose()
