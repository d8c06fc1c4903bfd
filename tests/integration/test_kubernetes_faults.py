"""A fleet on a real Kubernetes, under load, whose API server, etcd, or controller's node is away for a while.

Whatever goes, no request fails that may be repeated, none is done twice that must not be, no identity has two holders,
and afterwards all is there as it was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubernetes_controllers import Controllers

from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.names import AGENT, ROLE, Role
from shoal.engines.kubernetes.render_own import PUBLIC_PORT
from shoal.errors import EngineError
from testbed.kubernetes import control_plane, life
from testbed.swarm import network
from testbed.swarm.bed import Node
from tests.conformance.kubernetes_bed import KubernetesBed
from tests.conformance.load import Load, load
from tests.conformance.sink import Sink
from tests.kubernetes_cluster import Cluster

REPLICAS = 4
AWAY_S = 12.0  # longer than a Lease lasts
WITHIN_S = 10.0  # what a client waits
HELD_BY_ANOTHER = 8  # how an identity ends whose volume another one has
NODE_LOST_S = 180.0  # 40 s until Kubernetes says so, 20 more until its pods are given up; and a busy machine


def fleet(bed: KubernetesBed, sink: Sink, version: str = "1") -> dict[str, Any]:
    """A service, and one with an identity, whose volume knows of every holder."""
    update, environment = {"min_ready_time": "500ms"}, {"VERSION": version, "SINK": sink.url()}
    scale = {"min": REPLICAS, "max": REPLICAS + 2}
    health = {"path": "/healthz", "timeout": "10s", "retries": 6}  # a machine that is busy with all this is not ill
    web = {"public": {"path": "/web"}, "scale": scale, "idempotent": ["GET"], "update": update, "health": health}
    stock = {"public": {"path": "/stock"}, "stateful": True, "volumes": ["stock:/data"], "health": health}
    return {
        "agents": {
            "web": bed.http_agent(**web, environment=environment),
            "stock": bed.http_agent(**stock),
        }
    }


@pytest.fixture
async def sink(kubernetes: Cluster) -> AsyncIterator[Sink]:
    async with Sink().listen(kubernetes.host or "127.0.0.1") as listening:
        yield listening


@pytest.fixture
async def bed(sink: Sink) -> AsyncIterator[KubernetesBed]:
    async with KubernetesBed.opened(WITHIN_S) as made:
        await made.up(fleet(made, sink))
        yield made


@pytest.fixture
async def controllers(bed: KubernetesBed) -> AsyncIterator[Controllers]:
    async with Kubernetes(bed.cluster.access, bed.namespace) as kubernetes:
        yield Controllers(kubernetes)


@asynccontextmanager
async def loads(bed: KubernetesBed, base: str, sink: Sink) -> AsyncGenerator[tuple[Load, Load]]:
    """Requests that may be repeated, of both agents, and of those that must not be, which are counted where they are
    worked on. At the end none of the former has failed, and none of the latter was done twice."""
    async with (
        load(f"{base}/web/?ms=20", 30, within_s=WITHIN_S) as seen,
        load(f"{base}/web/note?id=NUMBER", 5, "POST", within_s=WITHIN_S) as once,
    ):
        await asyncio.sleep(1.0)
        yield seen, once
    assert seen.failed == {} and seen.outcomes["200"] > 100
    assert max(Counter(sink.said()).values()) == 1
    assert set(sink.said()) >= {f"{number}" for number in range(5)}


async def whole_again(bed: KubernetesBed, replicas: int = REPLICAS) -> None:
    """All is there, on all nodes, and the identity once, which started as often as its volume says."""

    def holds(status: Any) -> bool:
        counts = {agent.name: (agent.ready, len(agent.replicas)) for agent in status.agents}
        return status.settled and counts == {"web": (replicas, replicas), "stock": (1, 1)} and len(status.gateways) == 2

    async with asyncio.timeout(NODE_LOST_S):
        while True:
            with contextlib.suppress(EngineError):  # the API server may be on its way
                await bed.until(holds, "all of it to be back", NODE_LOST_S)
                break
            await asyncio.sleep(0.2)
    async with Kubernetes(bed.cluster.access, bed.namespace) as kubernetes:
        (stock,) = (await kubernetes.list(POD, {AGENT: "stock"}))[0]
    ended = stock["status"]["containerStatuses"][0]["lastState"].get("terminated", {})
    assert ended.get("exitCode") != HELD_BY_ANOTHER


@pytest.mark.parametrize("part", ["kube-apiserver", "etcd"])
async def test_the_control_plane_is_away(kubernetes: Cluster, bed: KubernetesBed, sink: Sink, part: str) -> None:
    """For longer than the Lease lasts: what runs serves on as it is, and then the controller goes on where it was."""
    before = await bed.replicas("web")
    with kubernetes.to_be_broken() as testbed:
        base = await bed.url()
        async with loads(bed, base, sink) as (_, once):
            control_plane.part_of(testbed, part).stop()
            await asyncio.sleep(AWAY_S)
            await asyncio.to_thread(life.run_part, testbed, part)
            await whole_again(bed)
        assert once.failed == {} and (await bed.replicas("web")).keys() == before.keys()
        await bed.api.scale("web", REPLICAS + 1)
        await whole_again(bed, REPLICAS + 1)


async def test_a_controller_is_cut_off(
    kubernetes: Cluster, bed: KubernetesBed, sink: Sink, controllers: Controllers
) -> None:
    """With its node: the other one takes the Lease, and acts; the one that comes back lets it."""
    with kubernetes.to_be_broken() as testbed:
        first = await controllers.leader()
        lost = await node_of(controllers, testbed.nodes(), first)
        async with loads(bed, await gateway_not_on(controllers, lost), sink):
            network.set_cable(lost, plugged=False)
            second = await controllers.another_leader(first)
            network.set_cable(lost, plugged=True)
            await whole_again(bed)
        assert await controllers.leader() == second
        assert f"another controller acts now: {second}" in await controllers.said_before(first)
        await bed.api.scale("web", REPLICAS + 1)
        await whole_again(bed, REPLICAS + 1)


async def node_of(controllers: Controllers, nodes: list[Node], pod: str) -> Node:
    found = await controllers.kubernetes.get(POD, pod)
    return next(node for node in nodes if node.name == found["spec"]["nodeName"])


async def gateway_not_on(controllers: Controllers, node: Node) -> str:
    """One that survives: the cluster's Service leads to the others too, until they are given up."""
    pods, _ = await controllers.kubernetes.list(POD, {ROLE: Role.GATEWAY.value})
    return next(
        f"http://{pod['status']['podIP']}:{PUBLIC_PORT}" for pod in pods if pod["spec"]["nodeName"] != node.name
    )
