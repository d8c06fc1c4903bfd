"""Jobs under the loop when a change comes: runs that go on, and agents that become jobs or cease to be."""

from __future__ import annotations

from typing import Any

from shoal.core.action import Remove
from shoal.core.observed import JobRun, Phase
from shoal.core.record import AgentRecord
from shoal.core.signals import Signals
from shoal.engines.memory.behaviour import Behaviour
from tests.unit.control.drive import Drive, driving

WEB: dict[str, Any] = {"command": "serve", "port": 80, "public": {"path": "/a"}, "scale": {"min": 2, "max": 2}}
JOB: dict[str, Any] = {"command": "do", "schedule": {"cron": "0 0 1 1 *"}, "retries": 1}


def run_of(drive: Drive, run_id: str) -> JobRun:
    return next(run for run in drive.state("a").observed.runs if run.run_id == run_id)


async def begun(drive: Drive) -> str:
    """A run by hand, which lasts until the test ends it."""
    drive.engine.behave("a", Behaviour(job_s=None, ready_s=0.5, stop_s=0.2))
    run_id = drive.controller.run_job("a")
    await drive.go(3, until=lambda: any(run.run_id == run_id for run in drive.state("a").observed.runs))
    return run_id


async def test_a_run_keeps_the_version_that_it_began_with() -> None:
    """Through a change and its own retry; runs that begin later have the new one, and then the old one is forgotten."""
    async with driving() as drive:
        await drive.up({"a": JOB})
        await drive.go(3, until=lambda: drive.controller.settled)
        old, first = drive.state("a").revision, await begun(drive)
        await drive.up({"a": {**JOB, "command": "do better"}})
        await drive.go(3, until=lambda: drive.controller.settled and drive.state("a").revision != old)
        second = await begun(drive)
        drive.engine.finish_run("a", first, exit_code=1)
        await drive.go(5, until=lambda: run_of(drive, first).attempt == 2)
        new = drive.state("a").revision
        assert (run_of(drive, first).revision, run_of(drive, second).revision) == (old, new)
        assert set(drive.state("a").observed.counts) == {old, new}
        drive.engine.finish_run("a", first)
        await drive.go(3, until=lambda: set(drive.state("a").observed.counts) == {new})
        assert run_of(drive, second).phase is Phase.RUNNING


async def test_a_service_that_becomes_a_job_leaves_the_gateway_first() -> None:
    """Its replicas are stopped once the gateways agree; nothing of its count or its route is left."""
    async with driving() as drive:
        await drive.up({"a": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.gateways._agrees = False  # pyright: ignore[reportPrivateUsage] - the test decides when
        await drive.up({"a": JOB})
        await drive.go(2)
        assert drive.route("a").endpoints == ()
        assert [replica.phase for replica in drive.state("a").observed.replicas] == [Phase.RUNNING] * 2
        assert not drive.controller.settled and drive.state("a").waiting_for == "old replicas to drain"
        drive.gateways._agrees = True  # pyright: ignore[reportPrivateUsage]
        drive.gateways.acknowledge()
        await drive.go(5, until=lambda: drive.controller.settled)
        assert drive.state("a").observed.replicas == () and drive.state("a").route is None
        assert drive.gateways.snapshot is not None and "a" not in drive.gateways.snapshot.agents
        record = (await drive.store.read_records())["a"]
        state = drive.state("a")
        assert (state.decision, state.signals, state.traffic) == (None, Signals(), None)
        assert record == AgentRecord(last_fire_at=record.last_fire_at, schedule="0 0 1 1 * UTC", started=True)


async def test_a_job_that_becomes_a_service_finishes_its_run() -> None:
    """The service serves meanwhile."""
    async with driving() as drive:
        await drive.up({"a": JOB})
        await drive.go(3, until=lambda: drive.controller.settled)
        old, run_id = drive.state("a").revision, await begun(drive)
        await drive.up({"a": WEB})
        await drive.go(5, until=lambda: drive.controller.settled and len(drive.route("a").endpoints) == 2)
        assert run_of(drive, run_id).phase is Phase.RUNNING and Remove("a", old) not in drive.engine.acted
        assert drive.state("a").next_run_at is None
        drive.engine.finish_run("a", run_id)
        await drive.go(3, until=lambda: old not in drive.state("a").observed.counts)
        assert run_of(drive, run_id).phase is Phase.SUCCEEDED
