"""What `shoal render` writes, applied to a real cluster by somebody else; then `shoal up` of the same fleet."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_namespace import a_namespace

from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, NAMESPACE, POD, kind_of
from shoal.engines.kubernetes.names import AGENT, FLEET, labels_of
from tests.kubernetes_cluster import Cluster, ClusterImages

pytestmark = pytest.mark.kubernetes

PATIENCE_S = 120
AGENTS = """
agents:
  web: {command: [python3, /agents/http_agent.py], port: 8000, scale: 2, resources: {cpu: 1m, memory: 100M}}
  stock: {command: [python3, /agents/http_agent.py], port: 9000, stateful: true}
  work: {command: [sleep, "1000000"], queue: tasks, stop_grace_period: 1s}
  keyed: {command: [python3, /agents/http_agent.py], port: 8000, secrets: [KEY]}
"""


@pytest.fixture
async def namespace() -> AsyncIterator[Kubernetes]:
    async with a_namespace() as kubernetes:
        yield kubernetes


@pytest.mark.parametrize("server_side", [True, False])
async def test_up_takes_over_what_was_applied(
    namespace: Kubernetes, kubernetes: Cluster, kubernetes_images: ClusterImages, tmp_path: Path, *, server_side: bool
) -> None:
    """Who ran goes on; who waited for a Secret by its own name starts as the same pod; only who named a stand-in is
    replaced. Once more, `up` finds nothing to do."""
    own = {"engine": "kubernetes", "context": kubernetes.context, "namespace": namespace.namespace}
    head = {"fleet": "shop", "image": kubernetes_images.agents, **own, "kubernetes": {"image": kubernetes_images.shoal}}
    (tmp_path / "shoal.yaml").write_text(yaml.safe_dump(head) + AGENTS)
    environ = {**os.environ, **kubernetes.environ, "SHOAL_HOME": str(tmp_path / "home"), "KEY": "hunter2"}

    async def shoal(*arguments: str) -> str:
        command = [sys.executable, "-m", "shoal.cli", *arguments]
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for item in yaml.safe_load_all(await shoal("render")):
        if server_side:
            await namespace.apply(kind_of(item), item, manager="kubectl")
        else:
            await _apply_client_side(namespace, item)
    before = await _running(namespace, {"web": 2, "stock": 1})
    waiting = {each["metadata"]["uid"] for each in await _pods(namespace, "work")}
    await shoal("up", "-d", "--wait-timeout", f"{PATIENCE_S}s")
    after = await _running(namespace, {"web": 2, "stock": 1, "work": 1, "keyed": 1})
    assert after["web"] == before["web"] and after["stock"] == before["stock"] and after["work"] == waiting
    versions = await _versions(namespace)
    assert "No changes." in await shoal("plan")
    await shoal("up", "-d")
    assert await _versions(namespace) == versions
    await shoal("down", "--volumes", "-y")


async def _apply_client_side(kubernetes: Kubernetes, item: dict[str, Any]) -> None:
    """As `kubectl apply` makes what is not there: what it said is noted, and all that is filled in is its own."""
    kind, about = kind_of(item), item["metadata"]
    if kind == NAMESPACE:
        return
    noted = {**(about.get("annotations") or {}), "kubectl.kubernetes.io/last-applied-configuration": json.dumps(item)}
    await kubernetes.request(
        "POST", kind.path(about["namespace"]), params={"fieldManager": "kubectl-client-side-apply"},
        json={**item, "metadata": {**about, "annotations": noted}}, asked=f"create {kind.name} {about['name']}",
    )  # fmt: skip


async def _pods(kubernetes: Kubernetes, agent: str) -> list[dict[str, Any]]:
    return (await kubernetes.list(POD, {FLEET: "shop", AGENT: agent}))[0]


async def _running(kubernetes: Kubernetes, counts: dict[str, int]) -> dict[str, set[str]]:
    """Their uids by agent, once exactly so many run."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found: dict[str, set[str]] = {}
            pods, _ = await kubernetes.list(POD, {FLEET: "shop"})
            for pod in pods:
                if pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp"):
                    found.setdefault(labels_of(pod).get(AGENT, ""), set()).add(pod["metadata"]["uid"])
            if all(len(found.get(agent, ())) == count for agent, count in counts.items()):
                return found
            await asyncio.sleep(0.5)


async def _versions(kubernetes: Kubernetes) -> dict[str, int]:
    """Of what was wanted, whatever became of it."""
    found, _ = await kubernetes.list(DEPLOYMENT, {FLEET: "shop"})
    return {each["metadata"]["name"]: each["metadata"]["generation"] for each in found}
