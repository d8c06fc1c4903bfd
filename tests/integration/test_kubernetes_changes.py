"""What somebody else changes in a real cluster is told and put back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_namespace import a_namespace
from kubernetes_rig import FLEET, PATIENCE_S, SERVICE
from kubernetes_shoal import Shoal

from shoal.engines.kubernetes.api import Kind, Kubernetes
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, NETWORK_POLICY, POD, SECRET, SERVICE_ACCOUNT, STATEFUL_SET
from shoal.engines.kubernetes.api.kinds import SERVICE as SERVICES
from shoal.engines.kubernetes.read import condition
from tests.kubernetes_cluster import Cluster, ClusterImages


@pytest.fixture
async def shoal(tmp_path: Path, kubernetes: Cluster, kubernetes_images: ClusterImages) -> AsyncIterator[Shoal]:
    async with a_namespace() as api:
        yield Shoal(tmp_path, kubernetes, api, kubernetes_images.shoal)


async def edit(api: Kubernetes, kind: Kind, name: str, change: Any) -> None:
    """As somebody with `kubectl edit` does."""
    await api.request(
        "PATCH", kind.path(api.namespace, name), params={"fieldManager": "kubectl-edit"}, json=change,
        content_type="application/strategic-merge-patch+json",
    )  # fmt: skip


async def ready_pods(api: Kubernetes, agent: str) -> list[str]:
    pods, _ = await api.list(POD, {"shoal.dev/agent": agent})
    return [each["metadata"]["name"] for each in pods if condition(each, "Ready").get("status") == "True"]


async def versions(api: Kubernetes) -> dict[tuple[str, str], object]:
    """Of all objects of the fleet that are not written all the time; where a status is noted too, of what is wanted."""
    found: dict[tuple[str, str], object] = {}
    for kind in (DEPLOYMENT, SERVICES, NETWORK_POLICY, SECRET, SERVICE_ACCOUNT):
        for item in await api.list_metadata(kind, {"shoal.dev/fleet": FLEET}):
            about = item["metadata"]
            found[kind.name, about["name"]] = about.get("generation") or about["resourceVersion"]
    return found


async def test_what_somebody_else_changes_is_told_and_put_back(shoal: Shoal, kubernetes_images: ClusterImages) -> None:
    """By who and field, with the exit code of a change; unchanged, `up` writes nothing."""
    api = shoal.kubernetes
    spec = {"agents": {"web": {"image": kubernetes_images.agents, **SERVICE}}}
    await shoal.up(spec)
    before = await versions(api)
    await shoal.up(spec)
    assert await versions(api) == before
    assert await shoal.run("plan", "--detailed-exitcode", spec=spec) == (
        0,
        "fleet shop on the kubernetes engine\n\nNo changes.\n",
    )
    (web,) = [name for kind, name in before if kind == "Deployment" and name.startswith("web-")]
    container = {"name": "agent", "env": [{"name": "EXTRA", "value": "1"}, {"name": "PYTHONUNBUFFERED", "value": "0"}]}
    await edit(api, DEPLOYMENT, web, {"spec": {"template": {"spec": {"containers": [container]}}}})
    await edit(api, SERVICES, "shoal-controller", {"spec": {"sessionAffinity": "ClientIP"}})  # nothing that Shoal says
    await edit(api, NETWORK_POLICY, "shoal-agents", {"spec": {"egress": [{}]}})
    await api.delete(NETWORK_POLICY, "shoal-broker")
    code, said = await shoal.run("plan", "--detailed-exitcode", spec=spec)
    told = [line.partition(" (kubectl-edit, 20")[0] for line in said.splitlines() if line.startswith("  ! ")]
    assert code == 2 and "~ web (service): rolling" in said, said
    path = "spec.template.spec.containers[agent].env"
    assert told[:3] == [
        f'  ! Deployment {web}: {path}[EXTRA]: {{"name": "EXTRA", "value": "1"}}',
        f"  ! Deployment {web}: {path}[PYTHONUNBUFFERED].value: 0",
        "  ! NetworkPolicy shoal-agents: spec.egress: [{}]",
    ]
    assert told[3:] == ["  ! NetworkPolicy shoal-broker: is gone"]
    await shoal.up(spec)
    assert (await shoal.run("plan", "--detailed-exitcode", spec=spec))[0] == 0
    assert (await api.get(NETWORK_POLICY, "shoal-agents"))["spec"]["egress"] != [{}]
    (new,) = [name for kind, name in await versions(api) if kind == "Deployment" and name.startswith("web-")]
    assert new != web


async def test_secrets_that_somebody_deletes_and_claims_that_nobody_can_change(
    shoal: Shoal, kubernetes_images: ClusterImages
) -> None:
    """A worker started anew gets its queue's URL all the same; a broker keeps its claim, and all else goes on."""
    api = shoal.kubernetes
    command = ["python3", "-c", "import os, time; print(os.environ['SHOAL_QUEUE_TASKS_URL']); time.sleep(600)"]
    worker = {"image": kubernetes_images.agents, "command": command, "queue": "tasks", "scale": {"min": 1}}
    spec = {"agents": {"work": worker}, "queues": {"tasks": {}}}
    await shoal.up(spec)
    claims = (await api.get(STATEFUL_SET, "shoal-broker"))["spec"]["volumeClaimTemplates"]
    (secret,) = [each["metadata"]["name"] for each in await api.list_metadata(SECRET, {"shoal.dev/agent": "work"})]
    (pod,) = [each["metadata"]["name"] for each in await api.list_metadata(POD, {"shoal.dev/agent": "work"})]
    await api.delete(SECRET, secret)
    await api.delete(POD, pod, grace_s=0)
    async with asyncio.timeout(PATIENCE_S):
        while await ready_pods(api, "work") in ([], [pod]):
            await asyncio.sleep(0.2)
    await shoal.up({**spec, "agents": {"work": {**worker, "environment": {"V": "2"}}}}, storage="3Gi")
    found = await api.get(STATEFUL_SET, "shoal-broker")
    assert found["spec"]["volumeClaimTemplates"] == claims
    code, said = await shoal.run("logs", "work", spec=spec, storage="3Gi")
    assert code == 0 and "***" in said and "nats://" not in said
