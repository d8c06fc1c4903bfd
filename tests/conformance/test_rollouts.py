"""One version after the other: replaced, given up, undone, restarted, without a failed request."""

from __future__ import annotations

import asyncio
from typing import Any

from shoal.api.views import AgentView
from tests.conformance.bed import FleetBed
from tests.conformance.load import load

WEB = {"public": {"path": "/web"}, "scale": {"min": 2, "max": 2}, "stop_grace_period": "20s"}


def web(bed: FleetBed, version: str, *, broken: bool = False) -> dict[str, Any]:
    """A version; a broken one is given up soon, while others have all the time that a busy machine needs."""
    update, environment = {"min_ready_time": "500ms"}, {"VERSION": version}
    if broken:
        update["progress_deadline"], environment["BROKEN"] = "20s", "1"
    return {"agents": {"web": bed.http_agent(**WEB, update=update, environment=environment)}}


def rollout_of(agent: AgentView, phase: str) -> bool:
    return agent.rollout is not None and agent.rollout.phase == phase and agent.settled == (phase == "complete")


async def until_rolled(bed: FleetBed, generation: int) -> AgentView:
    return await bed.until_agent(
        "web",
        lambda a: rollout_of(a, "complete") and a.rollout is not None and a.rollout.generation == generation,
        f"the rollout of generation {generation} to be complete",
    )


async def test_replace_and_come_back(bed: FleetBed) -> None:
    """A version takes over and the one before comes back: no request fails, a stream that is open goes on to its end,
    and each is a rollout of its own."""
    await bed.up(web(bed, "1"))
    url = await bed.url()
    async with load(f"{url}/web/", 40) as seen, asyncio.TaskGroup() as tasks:
        streams = [tasks.create_task(bed.get("/web/stream?n=60&ms=100")) for _ in range(5)]
        await asyncio.sleep(0.5)
        await bed.store(web(bed, "2"))
        await until_rolled(bed, 2)
        await bed.store(web(bed, "1"))
        back = await until_rolled(bed, 3)
    assert seen.failed == {} and set(seen.versions) == {"1", "2"}
    assert [(status, text.count("data:")) for status, text in (stream.result() for stream in streams)] == [
        (200, 60)
    ] * 5
    assert {replica.revision for replica in back.replicas if replica.phase == "running"} == {back.revision}


async def test_given_up_for_the_version_before(bed: FleetBed) -> None:
    """A version that never gets ready is given up after its deadline; the one before serves in full and unharmed, and
    a mended one takes over from it."""
    await bed.up(web(bed, "1"))
    async with load(f"{await bed.url()}/web/", 40) as seen:
        await bed.store(web(bed, "2", broken=True))
        agent = await bed.until_agent("web", lambda a: rollout_of(a, "failed") and len(a.replicas) == 2, "it to fail")
        assert agent.state == "failed" and agent.ready == 2 and agent.rollout is not None
        assert agent.rollout.serving == agent.rollout.stable and "exit code 3" in agent.reason
        assert agent.rollout.last_log == ("this version is broken",)
        await bed.store(web(bed, "3"))
        await until_rolled(bed, 3)
    assert seen.failed == {} and set(seen.versions) == {"1", "3"}


async def test_undo(bed: FleetBed) -> None:
    """`rollout undo` brings the version before back, as a rollout as any other."""
    await bed.up(web(bed, "1"))
    await bed.up(web(bed, "2"))
    async with load(f"{await bed.url()}/web/", 40) as seen:
        exit_code, said = await bed.shoal("rollout", "undo", "web", "-y")
        assert exit_code == 0, said
        agent = await until_rolled(bed, 3)
    assert {replica.revision for replica in agent.replicas} == {agent.revision}
    assert (await bed.get("/web/"))[1]["version"] == "1"
    assert seen.failed == {} and set(seen.versions) == {"1", "2"}


async def test_restart(bed: FleetBed) -> None:
    """The same version anew is a rollout as any other."""
    await bed.up(web(bed, "1"))
    before = await bed.replicas("web")
    async with load(f"{await bed.url()}/web/", 40) as seen:
        exit_code, said = await bed.shoal("restart", "web")
        assert exit_code == 0, said
        await until_rolled(bed, 2)
    assert seen.failed == {} and before.keys().isdisjoint(await bed.replicas("web"))


async def test_controller_killed_in_the_middle(bed: FleetBed) -> None:
    """Who takes over finishes the rollout: nothing fails, and no replica is made a second time."""
    await bed.up(web(bed, "1"))
    async with load(f"{await bed.url()}/web/", 40) as seen:
        for generation, pause_s in enumerate((0.2, 0.8, 1.6), 2):
            await bed.store(web(bed, f"{generation}"))
            await asyncio.sleep(pause_s)
            await bed.kill_controller()
            await asyncio.sleep(0.5)
            await bed.start_controller()
            await until_rolled(bed, generation)
    assert seen.failed == {}
    assert len(seen.replicas) == 8  # two of each version
