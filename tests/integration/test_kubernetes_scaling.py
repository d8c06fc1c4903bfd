"""Who says how many replicas there are, with the controller on a real Kubernetes: Shoal by what metrics-server told, an
HPA that measures real use, and a person with `kubectl scale`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from shoal.api.views import AgentView
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import AUTOSCALER, DEPLOYMENT
from shoal.engines.kubernetes.render import revision_name
from tests.conformance.kubernetes_bed import KubernetesBed
from tests.conformance.load import load
from tests.kubernetes_cluster import Cluster

PATIENCE_S = 240.0  # metrics-server and an HPA take up to a minute where nobody else is busy
BURNS = """
import runpy, threading
def burn():
    while True: pass
threading.Thread(target=burn, daemon=True).start()
runpy.run_path("/agents/http_agent.py", run_name="__main__")
"""


@pytest.fixture
async def bed(kubernetes: Cluster) -> AsyncIterator[KubernetesBed]:
    async with KubernetesBed.opened() as made:
        yield made


async def seen(bed: KubernetesBed, holds: Callable[[AgentView], bool], counts: set[int] | None = None) -> AgentView:
    """The agent `web` once that holds; every wished count until then goes into `counts`."""
    agent = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                agent = next((each for each in (await bed.api.status()).agents if each.name == "web"), None)
                if agent is not None and counts is not None:
                    counts.add(agent.desired)
                if agent is not None and holds(agent):
                    return agent
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S:g}s: {agent}\n{await bed.controller_log()}") from None


async def scale_by_hand(kubernetes: Kubernetes, name: str, count: int) -> None:
    """As `kubectl scale` does it."""
    await kubernetes.request(
        "PATCH",
        DEPLOYMENT.path(kubernetes.namespace, name, "scale"),
        params={"fieldManager": "kubectl"},
        json={"spec": {"replicas": count}},
        content_type="application/merge-patch+json",
        asked=f"scale {name}",
    )


def handed_over(agent: AgentView) -> bool:
    return agent.settled and agent.owner is not None and agent.owner.delegated


async def test_shoal_scales_by_what_metrics_server_measured(bed: KubernetesBed) -> None:
    """Real use of CPU, without an HPA; it says by how much that is over the target."""
    web = bed.http_agent(
        command=["python3", "-c", BURNS],
        resources={"cpu": "20m"},
        scale={"min": 1, "max": 2, "target": {"cpu": "50%"}},
    )
    await bed.store({"agents": {"web": web}})
    await seen(bed, lambda a: a.settled and a.ready == 1)
    scaled = await seen(bed, lambda a: a.settled and a.ready == 2)
    assert scaled.owner is None and scaled.cpu_cores is not None and scaled.cpu_cores > 0.01
    exit_code, said = await bed.shoal("explain", "web", "--last", "20")
    assert exit_code == 0 and re.search(r"1 -> 2  cpu \d+ % \(target 50 %\) asks for \d+", said), said
    async with Kubernetes(bed.cluster.access, bed.namespace) as kubernetes:
        assert await kubernetes.list_metadata(AUTOSCALER, {}) == []


async def test_an_hpa_scales_and_a_rollout_goes_under_it(bed: KubernetesBed) -> None:
    """It measures what replicas really use. The next version begins with its count, which no one changes meanwhile; no
    request fails; and then it is aimed at that one."""

    def spec(version: str) -> dict[str, Any]:
        web = bed.http_agent(
            command=["python3", "-c", BURNS],
            public={"path": "/web"},
            environment={"VERSION": version},
            resources={"cpu": "20m"},
            scale={"min": 1, "max": 2, "target": {"cpu": "50%"}},
        )
        return {
            "agents": {"web": web},
            "kubernetes": {"image": bed.images.shoal, "service": "NodePort", "autoscaler": "native"},
        }

    await bed.store(spec("1"))
    first = await seen(bed, handed_over)
    assert first.desired == 1 and first.decision is not None
    scaled = await seen(bed, lambda a: a.settled and a.ready == 2)
    assert scaled.owner is not None and scaled.owner.name == "HPA web (autoscaling/v2)"
    assert scaled.reason == "set to 2 by HPA web (autoscaling/v2)"
    counts: set[int] = set()
    async with load(f"{await bed.url()}/web/", 20) as answers:
        await bed.store(spec("2"))
        taken = await seen(bed, lambda a: a.owner is None and a.revision != first.revision, counts)
        rolled = await seen(bed, lambda a: handed_over(a) and a.revision == taken.revision, counts)
    assert answers.failed == {} and set(answers.versions) == {"1", "2"}
    assert counts == {2} and rolled.ready == 2
    async with Kubernetes(bed.cluster.access, bed.namespace) as kubernetes:
        made = await kubernetes.get(AUTOSCALER, "web")
    assert made["spec"]["scaleTargetRef"]["name"] == revision_name("web", rolled.revision)


async def test_a_person_scales_by_hand(bed: KubernetesBed) -> None:
    """The count stays, over a restart of the controller too; who has it is shown, and it is taken back when asked
    for."""
    quick = {"stabilization_window": "0s", "policies": [{"type": "percent", "value": 100, "period": "1s"}]}
    scale = {"min": 1, "max": 3, "target": {"concurrency": 5}, "behavior": {"scale_down": quick}}
    await bed.up({"agents": {"web": bed.http_agent(scale=scale)}})
    agent = await seen(bed, lambda a: a.settled and a.ready == 1)
    async with Kubernetes(bed.cluster.access, bed.namespace) as kubernetes:
        await scale_by_hand(kubernetes, revision_name("web", agent.revision), 4)
    held = await seen(bed, lambda a: a.settled and a.ready == 4)
    assert held.owner is not None and (held.owner.name, held.owner.lasting) == ("kubectl", False)
    exit_code, said = await bed.shoal("status", "web")
    assert exit_code == 0 and "kubectl: 4, seen" in said and "`shoal scale web auto`" in said, said
    await bed.kill_controller()
    await bed.start_controller()
    again = await seen(bed, lambda a: a.settled and a.owner is not None)
    assert (again.ready, again.owner) == (4, held.owner)
    exit_code, said = await bed.shoal("scale", "web", "auto")
    assert exit_code == 0, said
    free = await seen(bed, lambda a: a.settled and a.ready == 1)
    assert free.owner is None
