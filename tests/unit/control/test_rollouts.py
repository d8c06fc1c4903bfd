"""Versions that take over from others, under the loop: in full capacity, given up, superseded, taken up again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from shoal.control.agent_state import AgentState
from shoal.core.action import Scale
from shoal.core.decision import Decision
from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.core.record import AgentRecord
from shoal.core.rollout import Rollout, RolloutPhase
from shoal.engines.memory.behaviour import Behaviour
from tests.unit.control.drive import Drive, driving

DEADLINE_S = 20


def web(version: str, count: int = 3, **update: object) -> dict[str, object]:
    return {
        "web": {
            "command": "serve", "port": 80, "public": {"path": "/web"}, "environment": {"VERSION": version},
            "scale": {"min": count, "max": count}, "update": {"progress_deadline": DEADLINE_S, **update},
        }
    }  # fmt: skip


def rollout(drive: Drive) -> Rollout:
    found = drive.state("web").record.rollout
    assert found is not None
    return found


def revisions(drive: Drive) -> set[str]:
    return {replica.revision for replica in drive.state("web").observed.replicas}


def of_wished(drive: Drive) -> list[Replica]:
    state = drive.state("web")
    return [replica for replica in state.observed.replicas if replica.revision == state.revision]


async def settled(drive: Drive, version: str = "1", count: int = 3, **update: object) -> str:
    """Brings the version to rest; gives its revision."""
    await drive.up(web(version, count, **update))
    await drive.go(30, until=lambda: drive.controller.settled and rollout(drive).phase is RolloutPhase.COMPLETE)
    drive.least_serving.clear()
    return drive.state("web").revision


async def test_a_rollout_is_told_and_kept() -> None:
    """It begins, and is complete once the new version alone is there; the record says so to who comes later."""
    async with driving() as drive:
        old = await settled(drive)
        new = await settled(drive, "2")
        kept = (await drive.store.read_records())["web"].rollout
        assert kept is not None and (kept.revision, kept.stable, kept.phase) == (new, old, RolloutPhase.COMPLETE)
        assert kept.generation == 2 and kept.finished_at is not None
        assert drive.said("rollout") == [f"{new} begins to take over from {old}"]
        assert len(drive.said("rollout-complete")) == 1 and drive.said("rollout-failed") == []


async def test_what_served_is_kept_and_what_was_given_up_is_not() -> None:
    """The newest first, so that who goes back finds what worked; also over a new controller."""
    async with driving() as drive:
        first, second = await settled(drive), await settled(drive, "2")
        drive.engine.behave("web", Behaviour(never_ready=True))
        await drive.up(web("3"))
        await drive.go(DEADLINE_S + 10, until=lambda: rollout(drive).phase is RolloutPhase.FAILED)
        drive.engine.behave("web", Behaviour(ready_s=0.5))
        assert await settled(drive, "1") == first
        record = (await drive.store.read_records())["web"]
        assert record.served == (first, second) and record.known_to_serve == {first, second}
    assert AgentRecord(rollout=Rollout("b", "a", 1, 0.0, 0.0)).known_to_serve == {"a"}
    assert AgentRecord().known_to_serve is None


async def test_a_new_replica_has_to_stay_ready() -> None:
    """An old replica goes only once a new one was ready for `min_ready_time`."""
    async with driving() as drive:
        old = await settled(drive, count=1, min_ready_time=5)
        await drive.up(web("2", 1, min_ready_time=5))
        await drive.go(5, until=lambda: drive.state("web").revision != old and any(r.ready for r in of_wished(drive)))
        ready_at = drive.now
        await drive.go(10, until=lambda: old not in revisions(drive))
        assert drive.now - ready_at >= 4.9 and revisions(drive) == {drive.state("web").revision}


async def test_surge_and_unavailable_hold() -> None:
    """Never more than the surge above the count, never less than what may be missing below it."""
    async with driving() as drive:
        await settled(drive, count=4, max_surge=0, max_unavailable=2)
        most = 0
        await drive.up(web("2", 4, max_surge=0, max_unavailable=2))

        def done() -> bool:
            nonlocal most
            there = [r for r in drive.state("web").observed.replicas if r.phase is not Phase.STOPPING]
            most = max(most, len(there))
            return drive.controller.settled and revisions(drive) == {drive.state("web").revision}

        await drive.go(40, until=done)
        assert most == 4 and drive.least_serving["web"] >= 2


@pytest.mark.parametrize("unavailable", [0, 2])
async def test_a_version_that_never_gets_ready_is_given_up(unavailable: int) -> None:
    """After the deadline the old version serves in full; why is kept, and the fleet is not settled."""
    async with driving() as drive:
        old = await settled(drive, max_unavailable=unavailable)
        drive.engine.behave("web", Behaviour(crash_after_s=0.2, never_ready=True, exit_code=3))
        await drive.up(web("2", max_unavailable=unavailable))
        await drive.go(DEADLINE_S + 10, until=lambda: rollout(drive).phase is RolloutPhase.FAILED)
        drive.engine.behave("web", Behaviour(ready_s=0.5))
        await drive.go(10, until=lambda: revisions(drive) == {old} and len(drive.route("web").endpoints) == 3)
        await drive.go(5)
        assert drive.least_serving["web"] >= 3 - unavailable
        assert "exit code 3" in rollout(drive).reason and not drive.controller.settled
        assert len(drive.said("rollout-failed")) == 1
        acted = len(drive.engine.acted)
        await drive.go(30)
        assert len(drive.engine.acted) == acted


async def test_a_mended_file_goes_on_after_a_failure() -> None:
    """The next version takes over from the one that serves, and the failure is forgotten."""
    async with driving() as drive:
        old = await settled(drive)
        drive.engine.behave("web", Behaviour(never_ready=True))
        await drive.up(web("2"))
        await drive.go(DEADLINE_S + 10, until=lambda: rollout(drive).phase is RolloutPhase.FAILED)
        drive.engine.behave("web", Behaviour(ready_s=0.5))
        new = await settled(drive, "3")
        assert rollout(drive).stable == old and revisions(drive) == {new}


async def test_going_back_to_what_serves_settles_at_once() -> None:
    """After a failure the file as it was before is what runs already."""
    async with driving() as drive:
        old = await settled(drive)
        drive.engine.behave("web", Behaviour(never_ready=True))
        await drive.up(web("2"))
        await drive.go(DEADLINE_S + 10, until=lambda: rollout(drive).phase is RolloutPhase.FAILED)
        await drive.go(5)
        before = {replica.id for replica in drive.state("web").observed.replicas}
        assert await settled(drive, "1") == old
        assert {replica.id for replica in drive.state("web").observed.replicas} == before


async def test_superseded_half_way() -> None:
    """A newer version takes over from two older ones at once, without less than the count serving at any time."""
    async with driving() as drive:
        old = await settled(drive, count=4)
        await drive.up(web("2", 4))
        await drive.go(20, until=lambda: drive.state("web").revision != old and len(of_wished(drive)) >= 2)
        assert old in revisions(drive)
        new = await settled(drive, "3", 4)
        assert revisions(drive) == {new} and drive.least_serving.get("web", 4) >= 4


async def test_scaling_goes_on_during_a_rollout_that_makes_no_progress() -> None:
    """More demand is met by the version that works, though another one is wished."""
    async with driving() as drive:
        old = await settled(drive, count=2)
        drive.controller.pin("web", 2)
        drive.engine.behave("web", Behaviour(never_ready=True))
        await drive.up(web("2", 2))
        await drive.go(3)
        drive.engine.behave("web", Behaviour(ready_s=0.3))
        drive.controller.pin("web", 6)
        await drive.go(8, until=lambda: len(drive.route("web").endpoints) >= 6)
        assert sum(r.revision == old and r.ready for r in drive.state("web").observed.replicas) >= 4


async def test_a_sleeping_agent_changes_without_waking() -> None:
    """At zero there is nothing to take over from; the next request wakes the new version."""
    async with driving() as drive:
        asleep = {"min": 0, "max": 2, "target": {"concurrency": 10}}
        for version in ("1", "2"):
            fleet = web(version)
            fleet["web"] = {**fleet["web"], "scale": asleep}  # pyright: ignore[reportGeneralTypeIssues] - a mapping
            await drive.up(fleet)
            await drive.go(5, until=lambda: drive.controller.settled)
        assert rollout(drive).phase is RolloutPhase.COMPLETE and not drive.state("web").observed.replicas
        assert drive.said("rollout") == []


async def test_stateful_agents_change_one_after_the_other() -> None:
    """The highest ordinal first; a version that fails gives its identity back to the one before."""
    async with driving() as drive:

        def stateful(version: str) -> dict[str, object]:
            agent = web(version)["web"]
            assert isinstance(agent, dict)
            return {"web": {**agent, "stateful": True}}

        await drive.up(stateful("1"))
        await drive.go(20, until=lambda: drive.controller.settled)
        old = drive.state("web").revision
        drive.least_serving.clear()
        drive.engine.behave("web", Behaviour(never_ready=True))
        await drive.up(stateful("2"))
        await drive.go(DEADLINE_S + 10, until=lambda: rollout(drive).phase is RolloutPhase.FAILED)
        drive.engine.behave("web", Behaviour(ready_s=0.5))
        await drive.go(10, until=lambda: revisions(drive) == {old} and len(drive.route("web").endpoints) == 3)
        assert drive.least_serving["web"] >= 2


async def lost(records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> None:
    """A write that did not reach the disk."""


@pytest.mark.parametrize("moment", range(9))
@pytest.mark.parametrize("noted", [True, False])
async def test_a_new_controller_finishes_the_rollout_and_repeats_nothing(moment: int, noted: bool) -> None:
    """Killed after any of its eight actions, whether or not it could note what it did, it ends as it would have: in
    full capacity, as many starts as there are replicas to replace, one rollout."""
    async with driving() as drive:
        old = await settled(drive)
        before = len(drive.engine.acted)
        await drive.up(web("2"))
        write = drive.store.write
        if not noted:
            drive.store.write = lost
        await drive.go(30, until=lambda: len(drive.engine.acted) - before >= moment)
        drive.store.write = write
        drive.controller = drive.new_controller()
        async with asyncio.TaskGroup() as tasks:
            drive.controller.tasks = tasks
            await drive.controller.take_over()
            await drive.go(30, until=lambda: drive.controller.settled and old not in revisions(drive))
        new = drive.state("web").revision
        made = {int(r.id.rpartition("-")[2]) for r in drive.state("web").observed.replicas}
        assert revisions(drive) == {new} and made == {4, 5, 6}
        assert drive.least_serving["web"] >= 3
        assert rollout(drive).phase is RolloutPhase.COMPLETE and rollout(drive).generation == 2
        stopped = [victim for a in drive.engine.acted[before:] if isinstance(a, Scale) for victim in a.victims]
        assert sorted(stopped) == ["web-1", "web-2", "web-3"]


async def test_a_machine_that_slept_gives_no_rollout_up() -> None:
    """Suspended for an hour in the middle of a rollout: it goes on, as nobody could make progress meanwhile."""
    async with driving() as drive:
        await settled(drive)
        await drive.up(web("2"))
        await drive.go(0.3)
        assert rollout(drive).phase is RolloutPhase.PROGRESSING
        drive.engine.behave("web", Behaviour(ready_s=2.0))
        drive.now += 3600.0
        await drive.go(30, until=lambda: drive.controller.settled)
        assert rollout(drive).phase is RolloutPhase.COMPLETE and revisions(drive) == {drive.state("web").revision}


def test_who_became_ready_in_the_future_counts_from_when_it_was_seen() -> None:
    """An engine whose clock is ahead, or ours set back: a replica proves itself in its time all the same."""
    ahead = Replica("web-1", "web", "r", Phase.RUNNING, ready=True, port=80, ready_at=5000.0)
    state = AgentState("web", None, AgentObserved("web", {"r": 1}, (ahead,)))
    assert [state.observed_by(now).replicas[0].ready_at for now in (1000.0, 1001.0)] == [1000.0, 1000.0]
    state.set_back(400.0)
    assert state.observed_by(601.5).replicas[0].ready_at == 600.0
    assert state.observed_by(6000.0) is state.observed


async def test_a_deadline_that_is_past_keeps_nobody_busy() -> None:
    """All new replicas serve, and an old one takes longer to end than a rollout may go without progress: the loop
    waits for that end, and does not look again and again because an instant is past."""
    async with driving() as drive:
        await settled(drive)
        drive.engine.mend(Behaviour(ready_s=0.5, stop_s=DEADLINE_S + 40))
        await drive.up(web("2"))
        await drive.go(DEADLINE_S + 30)
        state = drive.state("web")
        assert rollout(drive).phase is RolloutPhase.PROGRESSING and not state.settled
        assert {r.phase for r in state.observed.replicas} == {Phase.RUNNING, Phase.STOPPING}
        assert state.due_at is None or state.due_at > drive.now
        await drive.go(60, until=lambda: rollout(drive).phase is RolloutPhase.COMPLETE)
