"""A fleet on a real Kubernetes, under load, whose API server, etcd, or node is away for a while.

Whatever goes, no request fails that may be repeated, none is done twice that must not be, no identity has two holders,
and afterwards all is there as it was asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from kubernetes_under_load import REPLICAS, UnderLoad, under_load

from bench.controller_pods import Controllers
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, POD
from shoal.engines.kubernetes.names import AGENT
from shoal.errors import ShoalError
from testbed.kubernetes import control_plane, life
from testbed.swarm import network
from testbed.swarm import node as machine
from testbed.swarm.bed import Node
from tests.kubernetes_cluster import Cluster

AWAY_S = 12.0  # longer than a Lease lasts
REPLACED_S = 120.0  # 50 s until Kubernetes says so, 20 more until its pods are given up; and a busy machine


@pytest.fixture
async def fleet(kubernetes: Cluster) -> AsyncIterator[UnderLoad]:
    async with under_load(kubernetes) as made:
        yield made


@pytest.mark.parametrize("part", ["kube-apiserver", "etcd"])
async def test_the_control_plane_is_away(kubernetes: Cluster, fleet: UnderLoad, part: str) -> None:
    """For longer than the Lease lasts: what runs serves on as it is, and then the controller goes on where it was."""
    bed = fleet.bed
    before = await bed.replicas("web")
    with kubernetes.to_be_broken() as testbed:
        async with fleet.loads(await bed.url()) as (_, once):
            control_plane.part_of(testbed, part).stop()
            await asyncio.sleep(AWAY_S)
            await asyncio.to_thread(life.run_part, testbed, part)
            await fleet.whole_again()
        assert once.failed == {} and (await bed.replicas("web")).keys() == before.keys()
        await bed.api.scale("web", REPLICAS + 1)
        await fleet.whole_again(REPLICAS + 1)


async def test_an_agent_is_restarted_by_kubectl(fleet: UnderLoad) -> None:
    """`kubectl rollout restart`: one replica after the other, each only once another is ready."""
    kubernetes, before = fleet.controllers.kubernetes, set(await fleet.bed.replicas("web"))
    restarted = {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}}
    async with fleet.loads(await fleet.bed.url()) as (_, once):
        ((web,), _) = await kubernetes.list(DEPLOYMENT, {AGENT: "web"})
        await kubernetes.patch(DEPLOYMENT, web["metadata"]["name"], {"spec": {"template": {"metadata": restarted}}})
        async with asyncio.timeout(REPLACED_S):
            while before & set(await fleet.bed.replicas("web")):
                await asyncio.sleep(0.2)
        await fleet.whole_again()
    assert once.failed == {}


async def test_a_controller_is_cut_off(kubernetes: Cluster, fleet: UnderLoad) -> None:
    """With its node: the other one takes the Lease, and acts; the one that comes back lets it."""
    controllers = fleet.controllers
    with kubernetes.to_be_broken() as testbed:
        first = await controllers.leader()
        lost = await node_of(controllers, testbed.nodes(), first)
        async with fleet.loads(await fleet.gateway_not_on(lost)):
            network.set_cable(lost, plugged=False)
            second = await controllers.another_leader(first)
            network.set_cable(lost, plugged=True)
            await fleet.whole_again()
        assert await controllers.leader() == second
        assert f"another controller acts now: {second}" in await controllers.said_before(first)
        await fleet.bed.api.scale("web", REPLICAS + 1)
        await fleet.whole_again(REPLICAS + 1)


async def test_a_node_is_killed_and_comes_back(kubernetes: Cluster, fleet: UnderLoad) -> None:
    """With the controller that acts: others take the places of its replicas, and once it is back each is there once."""
    with kubernetes.to_be_broken() as testbed:
        lost = await node_of(fleet.controllers, testbed.nodes(), await fleet.controllers.leader())
        before = set(await fleet.bed.replicas("web"))
        async with fleet.loads(await fleet.gateway_not_on(lost)):
            await asyncio.to_thread(machine.kill, lost)
            began = time.monotonic()
            async with asyncio.timeout(REPLACED_S):
                while not await replaced(fleet, before):
                    await asyncio.sleep(0.5)
            print(f"replaced after {time.monotonic() - began:.0f}s")
            began = time.monotonic()
            await asyncio.to_thread(life.start, testbed, lost)
            print(f"booted in {time.monotonic() - began:.0f}s")
            await fleet.whole_again()
            print(f"whole again {time.monotonic() - began:.0f}s after its start began")


async def replaced(fleet: UnderLoad, before: set[str]) -> bool:
    """Whether so many serve as before, others among them; the controller may be on its way."""
    try:
        replicas = await fleet.bed.replicas("web")
    except ShoalError:  # it is asked again
        return False
    ready = {name for name, replica in replicas.items() if replica.ready}
    return len(ready) == REPLICAS and not ready <= before


async def node_of(controllers: Controllers, nodes: list[Node], pod: str) -> Node:
    found = await controllers.kubernetes.get(POD, pod)
    return next(node for node in nodes if node.name == found["spec"]["nodeName"])
