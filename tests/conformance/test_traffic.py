"""Requests: deployed, changed, scaled and drained without a failure; held, stuck to, broken off, refused."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from tests.conformance.bed import FleetBed
from tests.conformance.load import load

FAST_DOWN = {
    "scale_down": {"stabilization_window": "1s", "policies": [{"type": "percent", "value": 100, "period": "1s"}]}
}


def callers(bed: FleetBed) -> dict[str, Any]:
    return {
        "agents": {
            "front": bed.http_agent(public={"path": "/front"}, calls=["back"]),
            "back": bed.http_agent(),
            "other": bed.http_agent(),
        }
    }


async def test_deploy(bed: FleetBed) -> None:
    """A public service answers under its path once the fleet is settled; other paths are 404."""
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"}, scale={"min": 2, "max": 2})}})
    answers = [await bed.get("/web/hello?x=1") for _ in range(8)]
    while len(answers) < 100 and len({body["replica"] for _, body in answers}) < 2:  # of idle ones any may be asked
        answers.append(await bed.get("/web/hello?x=1"))
    assert {status for status, _ in answers} == {200}
    assert {body["path"] for _, body in answers} == {"/hello?x=1"}
    assert len({body["replica"] for _, body in answers}) == 2
    assert (await bed.get("/elsewhere"))[0] == 404


async def test_change(bed: FleetBed) -> None:
    """A new version takes over under load without a failed request, and the old one is gone in the end."""
    web = {"public": {"path": "/web"}, "scale": {"min": 2, "max": 2}}
    await bed.up({"agents": {"web": bed.http_agent(**web)}})
    async with load(f"{await bed.url()}/web/", 50) as seen:
        await asyncio.sleep(0.5)
        status = await bed.up({"agents": {"web": bed.http_agent(**web, environment={"VERSION": "2"})}})
        await asyncio.sleep(0.5)
    assert seen.failed == {}
    assert set(seen.versions) == {"1", "2"}
    assert {replica.revision for replica in status.agents[0].replicas} == {status.agents[0].revision}
    assert (await bed.get("/web/"))[1]["version"] == "2"


async def test_bad_version_leaves_the_old_one_serving(bed: FleetBed) -> None:
    """A version that never gets ready is told with its last log lines; requests go on as before."""
    web = {"public": {"path": "/web"}}
    await bed.up({"agents": {"web": bed.http_agent(**web)}})
    async with load(f"{await bed.url()}/web/", 20) as seen:
        await bed.store({"agents": {"web": bed.http_agent(**web, environment={"BROKEN": "1"})}})
        agent = await bed.until_agent("web", lambda a: a.state == "failed", "the bad version to be told", 120)
    assert seen.failed == {} and set(seen.versions) == {"1"}
    assert "this version is broken" in agent.reason


async def test_scale_up_and_down_under_load(bed: FleetBed) -> None:
    """Concurrency brings replicas, its end takes them away, and no request fails on the way."""
    scale = {"min": 1, "max": 4, "target": {"concurrency": 4}, "behavior": FAST_DOWN}
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"}, scale=scale)}})
    async with load(f"{await bed.url()}/web/?ms=200", 60) as seen:
        await bed.until(lambda _: len(seen.replicas) >= 3, "three replicas to answer")
    async with load(f"{await bed.url()}/web/?ms=1", 20) as after:
        await bed.until_agent("web", lambda a: a.desired == 1 and a.ready == 1 and a.stopping == 0, "one replica")
    assert seen.failed == {} and after.failed == {}


async def test_wake_from_zero(bed: FleetBed) -> None:
    """Requests that come while there is no replica are held and answered; then it falls asleep again."""
    scale = {"min": 0, "max": 2, "target": {"concurrency": 10}, "behavior": FAST_DOWN}
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"}, scale=scale)}})
    asleep = await bed.until_agent("web", lambda a: a.desired == 0 and a.state == "asleep", "the agent to sleep")
    assert asleep.ready == 0
    answers = await asyncio.gather(*(bed.get("/web/") for _ in range(10)))
    assert [status for status, _ in answers] == [200] * 10
    await bed.until_agent("web", lambda a: a.desired == 0 and not a.replicas, "the agent to sleep again")
    assert (await bed.get("/web/"))[0] == 200


async def test_drain_with_a_stream_in_flight(bed: FleetBed) -> None:
    """A replica that is scaled away finishes its stream first."""
    scale = {"min": 1, "max": 3}
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"}, scale=scale, stop_grace_period="20s")}})
    await bed.api.scale("web", 3)
    await bed.until_agent("web", lambda a: a.ready == 3, "three replicas")

    async def stream() -> int:
        status, body = await bed.get("/web/stream?n=100&ms=100")
        assert status == 200
        return body.count("data:")

    async with asyncio.TaskGroup() as tasks:
        streams = [tasks.create_task(stream()) for _ in range(6)]
        await bed.until_agent("web", lambda a: (a.concurrency or 0) >= 4, "the streams to be seen")
        await bed.api.scale("web", 1)
        await bed.until_agent("web", lambda a: a.ready == 1, "the others to drain")
    assert [each.result() for each in streams] == [100] * 6


async def test_sticky(bed: FleetBed) -> None:
    """Requests with the same key reach the same replica; different keys are spread."""
    web = bed.http_agent(public={"path": "/web"}, scale={"min": 3, "max": 3}, sticky={"header": "x-user"})
    await bed.up({"agents": {"web": web}})
    reached: dict[str, set[str]] = {}
    for _ in range(4):
        for user in range(60):
            _, body = await bed.get("/web/", headers={"x-user": f"user-{user}"})
            reached.setdefault(f"user-{user}", set()).add(body["replica"])
    assert all(len(replicas) == 1 for replicas in reached.values())
    assert len(set.union(*reached.values())) == 3


async def test_breaker(bed: FleetBed) -> None:
    """More requests in flight than declared are refused at once, and those within are answered."""
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"}, max_requests=6)}})
    gateways = itertools.cycle(await bed.every_gateway())  # each has its share of the limit
    answers = await asyncio.gather(*(bed.get("/web/?ms=4000", base=next(gateways)) for _ in range(20)))
    statuses = [status for status, _ in answers]
    assert statuses.count(503) >= 10 and statuses.count(200) >= 5
    assert set(statuses) == {200, 503}


async def test_calls_declared_and_refused(bed: FleetBed) -> None:
    """A declared call passes; an undeclared one is refused by the gateway."""
    await bed.up(callers(bed))
    _, allowed = await bed.get("/front/call?agent=back&path=/x")
    assert allowed["status"] == 200 and '"path": "/x"' in allowed["body"]
    _, env = await bed.get("/front/env")
    undeclared = env["SHOAL_URL_BACK"].removesuffix("/back") + "/other/x"
    _, refused = await bed.get("/front/call", params={"url": undeclared})
    assert refused["status"] == 403


@pytest.mark.enforces("agents.calls")
async def test_calls_around_the_gateway(bed: FleetBed) -> None:
    """At the callee's own address an undeclared call reaches nobody."""
    status = await bed.up(callers(bed))
    other = next(agent for agent in status.agents if agent.name == "other")
    _, direct = await bed.get("/front/call", params={"url": f"http://{other.replicas[0].address}/"})
    assert direct["status"] is None


async def test_replicas_killed_under_load(bed: FleetBed) -> None:
    """Of a replica that is killed no idempotent request is lost, and of others only those that it had in hand; it comes
    back each time."""
    web = bed.http_agent(public={"path": "/web"}, scale={"min": 3, "max": 3}, idempotent=["GET"])
    await bed.up({"agents": {"web": web}})
    url = f"{await bed.url()}/web/?ms=20"
    gone_at: list[float] = []
    async with load(url, 40) as repeatable, load(url, 40, "POST") as others:
        for kills in (1, 2, 3):
            assert (await bed.get("/web/kill", method="POST"))[0] == 503
            gone_at.append(time.monotonic())
            await bed.until_agent(
                "web", lambda a, kills=kills: a.ready == 3 and sum(r.restarts for r in a.replicas) == kills, "it back"
            )
    assert repeatable.failed == {}
    noticed_s = 1.0  # until each of Envoy's threads knows
    assert [at for at in others.lost_at if not any(-1 < at - gone < noticed_s for gone in gone_at)] == []
    assert len(others.lost_at) <= 12 < others.outcomes["200"]
