"""A fleet on a real Swarm whose machines go: a node killed, a cable pulled, the only manager lost and back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Generator

import pytest

from shoal.engines.swarm.docker import Docker
from shoal.engines.swarm.names import AGENT, FLEET
from testbed.swarm import life, network
from testbed.swarm import node as machine
from testbed.swarm.bed import Node
from testbed.swarm.engine_api import call
from tests.conformance.load import load
from tests.conformance.swarm_bed import SwarmBed
from tests.swarm_bed import Swarm

REPLICAS = 6


@pytest.fixture
async def bed(swarm: Swarm) -> AsyncIterator[SwarmBed]:
    """A service of six replicas on three nodes."""
    async with SwarmBed.opened(10) as made:
        web = made.http_agent(public={"path": "/web"}, scale={"min": REPLICAS, "max": REPLICAS}, idempotent=["GET"])
        await made.up({"agents": {"web": web}})
        yield made


async def whole_again(bed: SwarmBed) -> None:
    """Every replica and every gateway."""
    names = set(bed.swarm.addresses)
    await bed.until(
        lambda status: status.settled and status.agents[0].ready == REPLICAS and set(status.gateways) == names,
        "all of it to be back",
    )


async def test_a_node_is_killed(swarm: Swarm, bed: SwarmBed) -> None:
    """At a gateway that survives no request fails that may be repeated, and none hangs; what ran there runs elsewhere,
    and the node is used again once it is back."""
    with swarm.to_be_broken() as testbed:
        first, *others = testbed.nodes()
        hosted = await hosts(bed)
        last = max(others, key=lambda node: hosted[node.name])
        before = set(await bed.replicas("web"))
        async with load(f"http://{first.address}:{bed.port}/web/?ms=20", 40) as seen:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(machine.kill, last)
            await bed.until_agent(
                "web",
                lambda a: a.ready == len(a.replicas) == REPLICAS and any(each.id not in before for each in a.replicas),
                "others to take the places of its replicas",
            )
            await bed.until(lambda status: last.name not in status.gateways, "it to be missed")
            began = time.monotonic()
        assert time.monotonic() - began < 15  # what was in hand is answered
        assert seen.failed == {} and seen.outcomes["200"] > 300
        await asyncio.to_thread(life.start, last)
        await whole_again(bed)


async def test_a_cable_is_pulled_and_plugged_in(swarm: Swarm, bed: SwarmBed) -> None:
    """For a while nobody there is reached, and nobody there reaches anybody; no request elsewhere fails that may be
    repeated, and what comes back is one fleet."""
    with swarm.to_be_broken() as testbed:
        first, last = testbed.nodes()[0], testbed.nodes()[-1]
        async with load(f"http://{first.address}:{bed.port}/web/?ms=20", 40) as seen:
            await asyncio.sleep(1.0)
            network.set_cable(last, plugged=False)
            await bed.until(lambda status: last.name not in status.gateways, "it to be missed")
            await asyncio.sleep(5.0)
            network.set_cable(last, plugged=True)
            await whole_again(bed)
        assert seen.failed == {} and seen.outcomes["200"] > 400


async def test_the_only_manager_is_lost_and_back(swarm: Swarm, bed: SwarmBed) -> None:
    """With it go the state and the controller: the other nodes serve on as they are, and it goes on where it was.

    With Docker's own heartbeat a node that does not find the manager within half a minute is started afresh.
    """
    with swarm.to_be_broken() as testbed, heartbeat(testbed.nodes()[0], 20):
        first, second = testbed.nodes()[:2]
        elsewhere = [node for node in testbed.nodes() if node != first]
        async with load(f"http://{second.address}:{bed.port}/web/?ms=20", 40) as seen:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(machine.kill, first)
            await asyncio.sleep(10.0)
            assert all([await serves(bed, node) for node in elsewhere])
            await asyncio.to_thread(life.start, first)
            await whole_again(bed)
        assert seen.failed == {} and seen.outcomes["200"] > 400
        await bed.api.scale("web", 4)
        await bed.until_agent("web", lambda a: a.ready == 4 and len(a.replicas) == 4, "it to scale again")


@contextlib.contextmanager
def heartbeat(manager: Node, period_s: int) -> Generator[None]:
    """As `docker swarm update --dispatcher-heartbeat` sets it, meanwhile."""

    def set_to(nanoseconds: int) -> int:
        found = call(manager, "GET", "/swarm")
        before = found["Spec"]["Dispatcher"]["HeartbeatPeriod"]
        found["Spec"]["Dispatcher"]["HeartbeatPeriod"] = nanoseconds
        call(manager, "POST", f"/swarm/update?version={found['Version']['Index']}", found["Spec"])
        return before

    before = set_to(period_s * 10**9)
    try:
        yield
    finally:
        set_to(before)


async def hosts(bed: SwarmBed) -> Counter[str]:
    """How many replicas each node has, by its name."""
    found: Counter[str] = Counter()
    for name, endpoint in bed.swarm.endpoints.items():
        async with Docker(endpoint) as docker:
            found[name] = len([each for each in await docker.containers({FLEET: bed.fleet}) if AGENT in each["Labels"]])
    return found


async def serves(bed: SwarmBed, node: Node) -> bool:
    return (await bed.get("/web/", base=f"http://{node.address}:{bed.port}"))[0] == 200
