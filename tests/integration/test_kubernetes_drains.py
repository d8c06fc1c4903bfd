"""What a drain of nodes may take on a real Kubernetes: evictions, as `kubectl drain` asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from kubernetes_rig import PATIENCE_S, SERVICE, Rig, a_rig

from shoal.core.action import RunJob, Scale
from shoal.core.observed import Phase
from shoal.engines.kubernetes.api import KubernetesError
from shoal.engines.kubernetes.api.kinds import DISRUPTION_BUDGET, POD
from shoal.engines.kubernetes.names import labels_of
from tests.kubernetes_cluster import ClusterImages

pytestmark = pytest.mark.kubernetes

ONCE_MORE = "import os,time; print(os.uname().nodename, flush=True); time.sleep(4)"


@pytest.fixture
async def rig(kubernetes_images: ClusterImages) -> AsyncIterator[Rig]:
    async with a_rig(kubernetes_images.agents) as rig:
        yield rig


async def evict(rig: Rig, pod: str) -> None:
    """As a drain does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    await rig.kubernetes.request("POST", POD.path(rig.kubernetes.namespace, pod, "eviction"), json=eviction)


async def budgeted(rig: Rig) -> None:
    """Once the cluster has counted the replicas: it refuses evictions until it has."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            (budget,), _ = await rig.kubernetes.list(DISRUPTION_BUDGET)
            if budget.get("status", {}).get("disruptionsAllowed"):
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("stateful", [False, True])
async def test_one_replica_at_a_time(rig: Rig, stateful: bool) -> None:
    """Whichever revision it is of; the next only once another one is ready."""
    program = {**SERVICE, "stateful": stateful}
    web, newer = rig.ensure("web", program), rig.ensure("web", {**program, "environment": {"A": "1"}})
    await rig.act(web, Scale("web", web.revision, 2))
    first, second = await rig.ready("web", 2)
    if not stateful:
        await rig.act(Scale("web", web.revision, 1, (second.id,)), newer, Scale("web", newer.revision, 1))
        first, second = await rig.until(
            "web", lambda agent: agent.replicas if [r.ready for r in agent.replicas] == [True, True]
            and len({r.revision for r in agent.replicas}) == 2 else None,
        )  # fmt: skip
    await budgeted(rig)
    await evict(rig, first.id.split(".")[0])
    with pytest.raises(KubernetesError) as refused:
        await evict(rig, second.id.split(".")[0])
    assert refused.value.status == 429
    again = await rig.until(
        "web", lambda agent: agent.replicas if len(agent.replicas) == 2 and all(
            r.ready and r.id != first.id for r in agent.replicas) else None,
    )  # fmt: skip
    assert second.id in {replica.id for replica in again}


async def test_a_drained_run_is_no_attempt(rig: Rig) -> None:
    """It has one attempt, and succeeds by another pod."""
    fit = rig.ensure("fit", {"command": ["python3", "-c", ONCE_MORE], "schedule": "0 2 * * *"})
    await rig.act(fit, RunJob("fit", fit.revision, "fit-1", retries=0))
    await rig.until("fit", lambda agent: next((r for r in agent.runs if r.phase is Phase.RUNNING), None))
    pods, _ = await rig.kubernetes.list(POD)
    (pod,) = [each["metadata"]["name"] for each in pods if labels_of(each).get("shoal.dev/run") == "fit-1"]
    await evict(rig, pod)
    run = await rig.until(
        "fit", lambda agent: next((r for r in agent.runs if r.phase in (Phase.SUCCEEDED, Phase.FAILED)), None)
    )  # fmt: skip
    assert run.phase is Phase.SUCCEEDED
    said = [line.text async for line in rig.engine.logs("fit")]
    assert pod not in said[-1:]
