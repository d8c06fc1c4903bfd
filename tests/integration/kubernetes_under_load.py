"""A fleet on a Kubernetes that is asked all the while, and what must hold of it whatever happens to the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.controller_pods import Controllers
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.names import AGENT, ROLE, Role
from shoal.engines.kubernetes.render_own import PUBLIC_PORT
from shoal.errors import EngineError
from testbed.swarm.bed import Node
from tests.conformance.kubernetes_bed import KubernetesBed
from tests.conformance.load import Load, load
from tests.conformance.sink import Sink
from tests.kubernetes_cluster import Cluster

REPLICAS = 4
WHOLE_S = 120.0  # what a busy machine takes for all of it
_WITHIN_S = 10.0  # what a client waits
_HELD_BY_ANOTHER = 8  # how an identity ends whose volume another one has


@dataclass(frozen=True)
class UnderLoad:
    """A service, and one with an identity, whose volume knows of every holder."""

    bed: KubernetesBed
    sink: Sink
    controllers: Controllers

    def spec(self, version: str) -> dict[str, Any]:
        update, environment = {"min_ready_time": "500ms"}, {"VERSION": version, "SINK": self.sink.url()}
        scale = {"min": REPLICAS, "max": REPLICAS + 2}
        health = {"path": "/healthz", "timeout": "10s", "retries": 6}  # a machine that is busy with all this is not ill
        # Without a share of the cores a pod stands still while anything else on its node has to do.
        each = {"health": health, "resources": {"cpu": "100m"}}
        web = {"public": {"path": "/web"}, "scale": scale, "idempotent": ["GET"], "update": update, **each}
        stock = {"public": {"path": "/stock"}, "stateful": True, "volumes": ["stock:/data"], **each}
        return {
            "agents": {
                "web": self.bed.http_agent(**web, environment=environment),
                "stock": self.bed.http_agent(**stock),
            }
        }

    @asynccontextmanager
    async def loads(self, base: str) -> AsyncGenerator[tuple[Load, Load]]:
        """Requests that may be repeated, and such that must not be, which are counted where they are worked on. At the
        end none of the former has failed, and none of the latter was done twice."""
        async with (
            load(f"{base}/web/?ms=20", 30, within_s=_WITHIN_S) as seen,
            load(f"{base}/web/note?id=NUMBER", 5, "POST", within_s=_WITHIN_S) as once,
        ):
            began = time.monotonic()
            await asyncio.sleep(1.0)
            yield seen, once
        done, lost = self.sink.said(), sorted(seen.lost_at + once.lost_at)
        print(f"{seen.outcomes}, not to be repeated {once.outcomes}, done {len(done)}, lost after")
        print([f"{at - began:.1f}s" for at in lost], f"of {time.monotonic() - began:.0f}s")
        assert seen.failed == {} and seen.outcomes["200"] > 100
        assert max(Counter(done).values()) == 1
        assert set(done) >= {f"{number}" for number in range(5)}

    async def whole_again(self, replicas: int = REPLICAS) -> None:
        """All is there, on all nodes, and the identity once, which started as often as its volume says."""
        asked = {"web": (replicas, replicas), "stock": (1, 1)}

        def holds(status: Any) -> bool:
            counts = {agent.name: (agent.ready, len(agent.replicas)) for agent in status.agents}
            return status.settled and counts == asked and len(status.gateways) == 2

        async with asyncio.timeout(WHOLE_S):
            while True:
                with contextlib.suppress(EngineError):  # the API server may be on its way
                    await self.bed.until(holds, "all of it to be back", WHOLE_S)
                    break
                await asyncio.sleep(0.2)
        (stock,) = (await self.controllers.kubernetes.list(POD, {AGENT: "stock"}))[0]
        ended = stock["status"]["containerStatuses"][0]["lastState"].get("terminated", {})
        assert ended.get("exitCode") != _HELD_BY_ANOTHER

    async def gateway_not_on(self, node: Node) -> str:
        """One that survives: the cluster's Service leads to the others too, until they are given up."""
        pods, _ = await self.controllers.kubernetes.list(POD, {ROLE: Role.GATEWAY.value})
        return next(
            f"http://{pod['status']['podIP']}:{PUBLIC_PORT}" for pod in pods if pod["spec"]["nodeName"] != node.name
        )


@asynccontextmanager
async def under_load(cluster: Cluster) -> AsyncGenerator[UnderLoad]:
    """One that is up, in its first version."""
    async with (
        Sink().listen(cluster.host or "127.0.0.1") as sink,
        KubernetesBed.opened(_WITHIN_S) as bed,
        Kubernetes(cluster.access, bed.namespace) as kubernetes,
    ):
        made = UnderLoad(bed, sink, Controllers(kubernetes))
        await bed.up(made.spec("1"))
        yield made
