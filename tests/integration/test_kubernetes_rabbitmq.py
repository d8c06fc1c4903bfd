"""A fleet on a real Kubernetes whose queue is on a RabbitMQ outside of it: credentials as a Secret, scaled from zero,
and let out to it by a network policy that no other agent has."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rabbitmq_node import CREDENTIALS, OnRabbitMq, rabbitmq_node, require_rabbitmq
from rabbitmq_on_cluster import PASSWORD, spec, work
from typed import Typed

from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import CONFIG_MAP, DEPLOYMENT, NETWORK_POLICY, POD, SERVICE
from shoal.errors import NotFound
from shoal.sdk import close
from testbed.rabbitmq import RabbitMq
from tests.conformance.sink import Sink
from tests.kubernetes_cluster import Cluster, ClusterImages, skip


@asynccontextmanager
async def a_fleet(
    cluster: Cluster, images: ClusterImages, node: RabbitMq, sink: str
) -> AsyncGenerator[tuple[Typed, Kubernetes]]:
    """The command line for it, which takes it down at the end, and its namespace's API."""
    namespace = f"ware-house-{secrets.token_hex(4)}"
    worker = {
        "image": images.agents,
        "command": ["python3", "/agents/worker_agent.py"],
        "environment": {"SINK": sink},
    }
    other = {
        "image": images.agents, "command": ["python3", "/agents/http_agent.py"], "port": 8000, "public": "/other",
        "health": "/healthz",
    }  # fmt: skip
    where = {
        "engine": "kubernetes", "context": cluster.context, "namespace": namespace,
        "kubernetes": {"image": images.shoal, "service": "NodePort"}, "agents": {"other": other},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="shoal-") as directory:
        home = Path(directory)
        (home / "shoal.yaml").write_text(json.dumps(spec(node, worker, **where)))
        typed = Typed(home, cluster.environ, "shoal.yaml")
        try:
            async with Kubernetes(cluster.access, namespace) as kubernetes:
                yield typed, kubernetes
        finally:
            await asyncio.to_thread(typed, "down", "--volumes", "-y", SOURCE_OF_IT=CREDENTIALS)


async def test_a_fleet_on_kubernetes_works_on_a_rabbitmq(
    kubernetes: Cluster, kubernetes_images: ClusterImages, tmp_path: Path
) -> None:
    """As `rabbitmq_on_cluster` says; another agent of the fleet is not let out to it; `down --volumes` deletes the
    queues."""
    require_rabbitmq()
    if not kubernetes.host:
        skip("pods reach this machine, where the broker is, on the bed alone (make kube-up)")
    for node in rabbitmq_node(kubernetes.host):
        broker, sink = OnRabbitMq(tmp_path, node), Sink()
        broker.start()
        try:
            async with (
                sink.listen(kubernetes.host),
                a_fleet(kubernetes, kubernetes_images, node, sink.url()) as (typed, api),
            ):
                await asyncio.to_thread(typed, "up", "-d", "-y", SOURCE_OF_IT=CREDENTIALS)
                await let_out(api, kubernetes.host, int(sink.url().split(":")[2].partition("/")[0]))
                await work(typed, broker, sink, lambda: asyncio.run(all_objects(kubernetes, api.namespace)))
                await is_refused(typed, sink, node)
            with pytest.raises(NotFound):
                await broker.admin.peek("images")
        finally:
            await close()
            await broker.queues.close()
            await broker.admin.close()


async def let_out(api: Kubernetes, host: str, port: int) -> None:
    """Agents may tell the test what they did, and nothing else of this machine."""
    rule = {"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": [{"port": port}]}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "to-the-test"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]},
    }
    await api.apply(NETWORK_POLICY, policy)


async def is_refused(typed: Typed, sink: Sink, node: RabbitMq) -> None:
    """The agent without a queue reaches the test, and neither of the broker's ports."""
    gateway = json.loads(await asyncio.to_thread(typed, "status", "-o", "json"))["gateway_url"]
    async with aiohttp.ClientSession() as http:

        async def asked(url: str) -> Any:
            async with http.get(f"{gateway}/other/call", params={"url": url}) as answer:
                return (await answer.json())["status"]

        assert await asked(sink.url()) == 405  # it takes what is posted
        for port in (node.port, node.management_port):
            assert await asked(f"http://{node.host}:{port}/") is None


async def all_objects(cluster: Cluster, namespace: str) -> str:
    """All that shows how agents are run; Secrets are who holds it."""
    kinds = (POD, DEPLOYMENT, CONFIG_MAP, SERVICE, NETWORK_POLICY)
    async with Kubernetes(cluster.access, namespace) as api:
        objects = json.dumps([(await api.list(kind))[0] for kind in kinds])
    assert base64.b64encode(PASSWORD.encode()).decode() not in objects
    return objects
