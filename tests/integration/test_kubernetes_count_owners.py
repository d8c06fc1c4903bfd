"""Who sets how many replicas an agent has, on a real Kubernetes: what the engine hands over, and what it sees of
others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes_rig import SERVICE, Rig, a_rig, run_engine

from shoal.core.action import Autoscale, Remove, Scale
from shoal.core.observed import CountOwner
from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import AUTOSCALER, DEPLOYMENT, STATEFUL_SET
from shoal.engines.kubernetes.render import revision_name
from shoal.spec.scaling import Scale as Rules
from tests.kubernetes_cluster import ClusterImages

RULES = Rules.model_validate(
    {
        "min": 1,
        "max": 4,
        "target": {"cpu": "50%", "memory": "80%"},
        "behavior": {
            "scale_up": {"stabilization_window": "30s", "policies": [{"type": "pods", "value": 2, "period": "15s"}]},
            "scale_down": {"select_policy": "disabled"},
        },
    }
)


@pytest.fixture
async def rig(kubernetes_images: ClusterImages) -> AsyncIterator[Rig]:
    async with a_rig(kubernetes_images.agents) as rig:
        yield rig


async def scale_by_hand(rig: Rig, kind: Kind, name: str, count: int) -> None:
    """As `kubectl scale` does it."""
    await rig.kubernetes.request(
        "PATCH",
        kind.path(rig.kubernetes.namespace, name, "scale"),
        params={"fieldManager": "kubectl"},
        json={"spec": {"replicas": count}},
        content_type="application/merge-patch+json",
        asked="scale",
    )


async def test_who_set_a_count_by_hand_is_seen(rig: Rig) -> None:
    """By every controller that comes later too; and not any more once Shoal set the same."""
    web = rig.ensure("web", SERVICE)
    await rig.act(web, Scale("web", web.revision, 1))
    assert (await rig.engine.observe()).agents["web"].owners == {}
    await scale_by_hand(rig, DEPLOYMENT, revision_name("web", web.revision), 2)
    seen = await rig.until("web", lambda agent: agent if agent.owners else None)
    assert seen.counts == {web.revision: 2}
    owner = seen.owners[web.revision]
    assert owner == CountOwner("kubectl")
    async with run_engine(rig.kubernetes) as other:
        assert (await other.observe()).agents["web"].owners == {web.revision: owner}
    await rig.act(Scale("web", web.revision, 2, taken_from=owner))
    taken = (await rig.engine.observe()).agents["web"]
    assert (taken.counts, taken.owners) == ({web.revision: 2}, {})
    await scale_by_hand(rig, DEPLOYMENT, revision_name("web", web.revision), 0)
    nobody = await rig.until("web", lambda agent: agent if agent.counts == {web.revision: 0} else None)
    assert nobody.owners == {web.revision: CountOwner("somebody")}
    await rig.act(Scale("web", web.revision, 0, taken_from=CountOwner("somebody")))
    assert (await rig.engine.observe()).agents["web"].owners == {}


async def test_a_stateful_agents_count_too(rig: Rig) -> None:
    """There is one object, so all its revisions are of who set it."""
    stock = rig.ensure("stock", {**SERVICE, "stateful": True})
    await rig.act(stock, Scale("stock", stock.revision, 1))
    await scale_by_hand(rig, STATEFUL_SET, "stock", 2)
    seen = await rig.until("stock", lambda agent: agent if agent.owners else None)
    assert (seen.counts, list(seen.owners)) == ({stock.revision: 2}, [stock.revision])
    await rig.act(Scale("stock", stock.revision, 2, taken_from=seen.owners[stock.revision]))
    assert (await rig.engine.observe()).agents["stock"].owners == {}
    await rig.act(Autoscale("stock", stock.revision, RULES))
    made = await rig.kubernetes.get(AUTOSCALER, "stock")
    assert made["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "stock"}


async def test_a_count_is_handed_over_and_taken_back(rig: Rig) -> None:
    """To an object that the API server takes to the letter; said again nothing is written, and it goes with the agent
    that has it."""
    web = rig.ensure("web", {**SERVICE, "resources": {"cpu": "100m", "memory": "64Mi"}})
    await rig.act(web, Scale("web", web.revision, 1), Autoscale("web", web.revision, RULES))
    seen = (await rig.engine.observe()).agents["web"]
    assert seen.autoscaler is not None and seen.autoscaler.revision == web.revision
    assert (seen.autoscaler.owner.name, seen.owners) == ("HPA web (autoscaling/v2)", {})
    made = await rig.kubernetes.get(AUTOSCALER, "web")
    await rig.act(Autoscale("web", web.revision, RULES))
    again = await rig.kubernetes.get(AUTOSCALER, "web")
    assert again["metadata"].get("generation") == made["metadata"].get("generation")
    assert _applied(again) == _applied(made)
    await rig.act(Autoscale("web"))
    assert (await rig.engine.observe()).agents["web"].autoscaler is None
    await rig.act(Autoscale("web", web.revision, RULES), Remove("web"))
    assert await rig.names(AUTOSCALER) == set()


def _applied(item: dict[str, Any]) -> list[str]:
    return [each["time"] for each in item["metadata"]["managedFields"] if each["manager"] == "shoal"]


async def test_an_autoscaler_of_somebody_else_is_seen(rig: Rig) -> None:
    """Before it set anything, and until it is gone; who made it by an object of his own is named."""
    web = rig.ensure("web", SERVICE)
    await rig.act(web, Scale("web", web.revision, 1))
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": revision_name("web", web.revision)}
    theirs: dict[str, Any] = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "theirs"},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3, "metrics": []},
    }
    await rig.kubernetes.create(AUTOSCALER, theirs)
    seen = await rig.until("web", lambda agent: agent if agent.owners else None)
    owner = seen.owners[web.revision]
    assert owner == CountOwner("HPA theirs", lasting=True, trouble=owner.trouble)
    await rig.until("web", lambda agent: True if agent.counts == {web.revision: 2} else None)
    await rig.kubernetes.delete(AUTOSCALER, "theirs")
    await rig.until("web", lambda agent: True if not agent.owners else None)
