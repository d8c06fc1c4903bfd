"""Who runs a fleet: taken up again by the next controller, by one alone, beside other fleets, down to nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from tests.conformance.bed import FleetBed
from tests.conformance.load import load
from tests.conformance.sink import Sink


def mixed(bed: FleetBed, sink: str, version: str = "1") -> dict[str, Any]:
    """A service, a worker of a queue that the service puts tasks into, and a job."""
    environment = {"SINK": sink}
    job = {"schedule": {"cron": "0 0 1 1 *"}, "environment": {**environment, "LASTS_S": "600"}}
    return {
        "agents": {
            "web": bed.http_agent(
                public={"path": "/web"}, scale={"min": 2, "max": 2}, publishes=["tasks"],
                environment={"VERSION": version}, stop_grace_period="20s",
            ),
            "worker": bed.program("worker_agent.py", queue="tasks", environment=environment),
            "job": bed.program("job_agent.py", **job),
        },
        "queues": {"tasks": {}},
        "brokers": {"main": {"type": "embedded"}},
    }  # fmt: skip


async def processes(bed: FleetBed) -> dict[str, int]:
    """Which process answers for which replica of `web`."""
    found: dict[str, int] = {}
    for _ in range(100):
        _, body = await bed.get("/web/")
        found[body["replica"]] = body["pid"]
        if len(found) == 2:
            break
    return found


async def test_adopt(bed: FleetBed) -> None:
    """The next controller takes up what the one before left: the same processes go on and no request fails, what ended
    meanwhile comes back, and what was stored meanwhile is carried out."""
    fleet = {"web": bed.http_agent(public={"path": "/web"}, scale={"min": 2, "max": 2}), "other": bed.http_agent()}
    await bed.up({"agents": {**fleet, "front": bed.http_agent(public={"path": "/front"}, calls=["other"])}})
    before = await processes(bed)
    url = await bed.url()
    async with load(f"{url}/web/", 40) as seen:
        await bed.kill_controller()
        async with bed.http.get(f"{url}/front/call?agent=other&path=/kill") as answer:
            assert (await answer.json())["status"] == 503
        await asyncio.sleep(0.5)
        await bed.store({"agents": {**fleet, "other": bed.http_agent(environment={"VERSION": "2"})}})
        status = await bed.until(lambda status: status.settled and len(status.agents) == 2, "both to be carried out")
        assert await processes(bed) == before
    assert seen.failed == {} and set(seen.replicas) == set(before)
    web, other = sorted(status.agents, key=lambda agent: agent.name, reverse=True)
    assert [replica.restarts for replica in web.replicas] == [0, 0]
    assert other.ready == 1 and {replica.revision for replica in other.replicas} == {other.revision}


async def test_a_second_controller_is_refused(bed: FleetBed) -> None:
    """It does nothing, and says who runs the fleet; the first one goes on."""
    first = await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"})}})
    async with load(f"{await bed.url()}/web/", 20) as seen:
        said = await bed.start_another_controller()
    assert "has a controller already" in said and await bed.controller() in said
    after = await bed.until(lambda status: status.settled, "the fleet to be settled")
    assert seen.failed == {} and after.controller_pid == first.controller_pid


async def test_two_fleets_side_by_side(bed: FleetBed, neighbour: FleetBed, sink: Sink) -> None:
    """Agents and queues of the same names in two fleets know nothing of each other; one is changed and taken down, and
    the other does not notice."""
    ours_sink, theirs_sink = sink.url("ours"), sink.url("theirs")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bed.up(mixed(bed, ours_sink, "ours")))
        tasks.create_task(neighbour.up(mixed(neighbour, theirs_sink, "theirs")))
    async with load(f"{await bed.url()}/web/", 30) as ours:
        async with load(f"{await neighbour.url()}/web/", 30) as theirs:
            await neighbour.get("/web/publish?queue=tasks&name=theirs")
            await neighbour.until(lambda _: bool(sink.said("theirs")), "the task to be done")
            await neighbour.up(mixed(neighbour, theirs_sink, "theirs, changed"))
        await neighbour.down()
        assert await neighbour.left_behind() == []
    assert ours.failed == theirs.failed == {}
    assert set(ours.versions) == {"ours"} and set(theirs.versions) == {"theirs", "theirs, changed"}
    await bed.until(lambda status: status.settled, "the fleet to be settled")
    assert sink.said("ours") == []


async def test_down_without_a_controller(bed: FleetBed, sink: Sink) -> None:
    """`down` after a controller was killed ends all that it left: replicas, a run, the gateway, the broker. What has a
    request in hand answers it first."""
    await bed.up(mixed(bed, sink.url()))
    await bed.api.run("job")
    await bed.until_agent("job", lambda a: any(run.phase == "running" for run in a.runs), "the run to start")
    url = await bed.url()
    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(bed.get("/web/?ms=6000"))
        await bed.until_agent("web", lambda a: bool(a.concurrency), "the request to be there")
        await bed.kill_controller()
        left = await bed.left_behind()
        began = time.monotonic()
        said = await bed.down()
    assert len(left) >= 6 and await bed.left_behind() == []  # two of web, worker, run, gateway with its Envoy, broker
    assert "everything is stopped" in said
    assert slow.result()[0] == 200 and time.monotonic() - began < 34
    with pytest.raises(aiohttp.ClientConnectorError):
        await bed.http.get(url)
