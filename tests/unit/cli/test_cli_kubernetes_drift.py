"""What `plan` finds that somebody else changed in the cluster, and what it takes for no change."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.cli.kubernetes.drift import find_drift
from shoal.control.store import StoredFleet
from shoal.core.action import EnsureRevision
from shoal.core.revision import revision_of, template_of
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import (
    AUTOSCALER,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    SERVICE,
    kind_of,
)
from shoal.engines.kubernetes.render import Settings, render_budget, render_governing, render_revision
from shoal.engines.kubernetes.render_autoscaler import render_autoscaler
from shoal.engines.kubernetes.render_fleet import render_fleet, render_installed
from shoal.engines.kubernetes.render_own import Own, noted, render_gateway
from shoal.spec.model import Fleet
from tests.fake_kubernetes import FakeKubernetes

Object = dict[str, Any]
FLEET = Fleet.model_validate(
    {
        "fleet": "shop",
        "engine": "kubernetes",
        "agents": {name: {"image": "acme/web:1", "port": 80} for name in ("web", "quiet")},
    }
)
STORED = StoredFleet(1, FLEET, "/", "me", 0.0, {}, {})


class Cluster(FakeKubernetes):
    """One that counts what is read of its Deployments."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    async def find(self, kind: Any, name: str) -> Object | None:
        self.read.append(name)
        return await super().find(kind, name)


def name_of(agent: str) -> str:
    return f"{agent}-{revision_of(template_of(FLEET, agent, {}))}"


def change_by_hand(item: Object, key: str, value: object) -> None:
    """Sets a field of its `spec`, as `kubectl edit` does."""
    item["spec"][key] = value
    for entry in item["metadata"]["managedFields"]:
        del entry["fieldsV1"]["f:spec"][f"f:{key}"]
    item["metadata"]["managedFields"].append({"manager": "kubectl-edit", "fieldsV1": {"f:spec": {f"f:{key}": {}}}})


def edit(cluster: FakeKubernetes, agent: str, manager: str, fields: Object) -> Object:
    """Notes who set the fields; gives the Deployment, to set them in."""
    item = cluster.of(DEPLOYMENT)[name_of(agent)]
    item["metadata"]["managedFields"].append({"manager": manager, "fieldsV1": fields})
    return item


@pytest.fixture
async def cluster() -> Cluster:
    """With all of the fleet as Shoal made it."""
    made = Cluster()
    own = Own.of(FLEET, made.namespace)
    for item in (*render_installed(own, FLEET), *render_gateway(own)):
        await made.apply(kind_of(item), noted(item), force=True)
    for agent in FLEET.agents:
        template = template_of(FLEET, agent, {})
        action = EnsureRevision(agent, revision_of(template), template, {"SHOAL_URL_OTHER": "http://other"})
        for item in render_revision("shop", action, (), Settings()):
            item["metadata"]["managedFields"] = []
            await made.create(kind_of(item), item)
    return made


async def test_a_fleet_as_shoal_made_it_has_none(cluster: Cluster) -> None:
    """Nor one whose counts somebody else sets; no object of an agent is read for that."""
    edit(cluster, "web", "kubectl", {"f:spec": {"f:replicas": {}}})["spec"]["replicas"] = 7
    edit(cluster, "web", "kube-controller-manager", {"f:metadata": {"f:annotations": {}}, "f:status": {}})
    assert await find_drift(cluster, STORED) == () and cluster.read == []


async def test_what_was_changed_put_in_and_removed(cluster: Cluster) -> None:
    """Of agents and of Shoal's own; only what somebody touched is read."""
    container = {"f:containers": {'k:{"name":"agent"}': {"f:image": {}, "f:env": {'k:{"name":"X"}': {".": {}}}}}}
    there = edit(cluster, "web", "kubectl-edit", {"f:spec": {"f:template": {"f:spec": container}}})
    pod = there["spec"]["template"]["spec"]["containers"][0]
    pod["image"] = "nginx"
    pod["env"].append({"name": "X", "value": "1"})
    del cluster.of(NETWORK_POLICY)["shoal-agents"]
    service = cluster.of(SERVICE)["shoal-gateway"]
    service["spec"]["type"] = "NodePort"
    service["metadata"]["managedFields"] = [{"manager": "kubectl-patch", "fieldsV1": {"f:spec": {"f:type": {}}}}]
    found = [(each.where.split()[0], each.path, each.wanted, each.agent) for each in await find_drift(cluster, STORED)]
    assert found == [
        ("Deployment", "spec.template.spec.containers[agent].env[X]", None, "web"),
        ("Deployment", "spec.template.spec.containers[agent].image", "acme/web:1", "web"),
        ("NetworkPolicy", "", None, None),
        ("Service", "spec.type", "ClusterIP", None),
    ]
    assert cluster.read == [name_of("web")]


async def test_what_was_changed_of_what_agents_have_beside_their_replicas() -> None:
    """Is told of no agent's replicas: it is put back without new ones."""
    scale = {"min": 1, "max": 8, "target": {"cpu": "70%"}}
    agents = {
        "web": {"image": "acme/web:1", "port": 80, "resources": {"cpu": 1}, "scale": scale},
        "db": {"image": "acme/db:1", "port": 5432, "stateful": True},
    }
    options = {"engine": "kubernetes", "kubernetes": {"autoscaler": "native"}}
    fleet = Fleet.model_validate({"fleet": "shop", "agents": agents, **options})
    cluster = Cluster()
    target = ("Deployment", "web-r1")
    autoscaler = render_autoscaler("shop", "web", "r1", fleet.agents["web"].scale, target)
    for item in (autoscaler, render_budget("shop", "web"), render_governing("shop", "db", 5432)):
        made = await cluster.create(kind_of(item), item)
        cluster.of(kind_of(item))[made["metadata"]["name"]]["metadata"]["managedFields"] = [
            {"manager": "shoal", "fieldsV1": {"f:spec": {f"f:{key}": {} for key in item["spec"]}}}
        ]
    stored = StoredFleet(1, fleet, "/", "me", 0.0, {}, {})
    assert await find_drift(cluster, stored) == () and cluster.read == []
    for kind, name, key, value in (
        (AUTOSCALER, "web", "maxReplicas", 100),
        (DISRUPTION_BUDGET, "web", "maxUnavailable", 3),
        (SERVICE, "db", "publishNotReadyAddresses", False),
    ):
        change_by_hand(cluster.of(kind)[name], key, value)
    assert [
        (each.where, each.path, each.found, each.wanted, each.by, each.agent)
        for each in await find_drift(cluster, stored)
    ] == [
        ("HorizontalPodAutoscaler web", "spec.maxReplicas", 100, 8, "kubectl-edit", None),
        ("PodDisruptionBudget web", "spec.maxUnavailable", 3, 1, "kubectl-edit", None),
        ("Service db", "spec.publishNotReadyAddresses", False, True, "kubectl-edit", None),
    ]
    other = fleet.model_copy(update={"agents": {"db": fleet.agents["db"]}})
    assert [each.where for each in await find_drift(cluster, StoredFleet(2, other, "/", "me", 0.0, {}, {}))] == [
        "Service db"
    ]


async def test_what_was_rendered_and_applied_by_somebody_is_no_change() -> None:
    """All fields are that one's then, those too that tell an agent whom it may call."""
    cluster = FakeKubernetes()
    for item in render_fleet(FLEET, cluster.namespace).objects:
        if item["kind"] != "Namespace":
            env = {f'k:{{"name":"{name}"}}': {".": {}, "f:value": {}} for name in ("SHOAL_FLEET", "SHOAL_AGENT")}
            fields = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"agent"}': {"f:env": env}}}}}}
            item["metadata"]["managedFields"] = [{"manager": "kubectl", "fieldsV1": fields}]
            await cluster.create(kind_of(item), item)
    assert await find_drift(cluster, STORED) == ()
    container = cluster.of(DEPLOYMENT)[name_of("web")]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "SHOAL_FLEET", "value": "shop"} in container["env"]


async def test_another_version_of_shoal_is_no_change(cluster: Cluster) -> None:
    """What was applied last differs from what this one would: that is for `up` to say."""
    for item in cluster.of(SERVICE).values():
        item["metadata"]["annotations"] = {"shoal.dev/content": "of another"}
        item["spec"] = {}
    assert await find_drift(cluster, STORED) == ()


async def test_nothing_is_said_where_nothing_was_installed() -> None:
    """As after `down`, or an `up` that never got there."""
    empty: Kubernetes = FakeKubernetes()
    assert await find_drift(empty, STORED) == ()
