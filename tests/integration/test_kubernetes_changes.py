"""What somebody else changes in a real cluster is told and put back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_namespace import a_namespace
from kubernetes_rig import FLEET, SERVICE
from kubernetes_shoal import Shoal

from shoal.engines.kubernetes.api import Kind, Kubernetes
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, NETWORK_POLICY, SECRET, SERVICE_ACCOUNT
from shoal.engines.kubernetes.api.kinds import SERVICE as SERVICES
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
