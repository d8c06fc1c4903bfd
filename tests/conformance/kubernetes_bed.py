"""Conformance cases on Kubernetes, with the controller as a Deployment in the fleet's namespace."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from shoal.api.client import Client
from shoal.api.views import ReplicaView
from shoal.cli.kubernetes.place import KubernetesPlace
from shoal.control.store import SecretRecord
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import (
    DEPLOYMENT,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    REPLICA_SET,
    SERVICE,
    STATEFUL_SET,
)
from shoal.engines.kubernetes.api.refusals import KubernetesError
from shoal.engines.kubernetes.capabilities import CAPABILITIES
from shoal.engines.kubernetes.exec import open_command
from shoal.engines.kubernetes.names import CONTROLLER, FLEET, GATEWAY, LEADER, ROLE, Role
from shoal.engines.kubernetes.own_pods import gateway_ready
from shoal.engines.kubernetes.read import replica_id
from shoal.engines.kubernetes.removal import remove_all
from shoal.engines.kubernetes.render_pod import CONTAINER
from shoal.spec.model import Fleet
from tests.conformance.bed import DEADLINE_S, FleetBed
from tests.kubernetes_cluster import Cluster, ClusterImages, find_images, find_or_skip


class KubernetesBed(FleetBed):
    """See `FleetBed`. Each has a namespace of its own, so that none waits for the end of the one before."""

    engine = "kubernetes"
    capabilities = CAPABILITIES
    most_files = 2**30
    _found: ClassVar[tuple[Cluster, ClusterImages] | None] = None

    def __init__(self, home: Path, http: aiohttp.ClientSession, fleet: str = "conformance") -> None:
        super().__init__(home, http, fleet)
        self.namespace = f"{fleet}-{uuid.uuid4().hex[:8]}"
        self.environ |= self.cluster.environ
        self.sink_host = self.cluster.host
        self._place = KubernetesPlace(fleet, self.cluster.context, self.namespace, self.environ)
        self._begun = False

    @classmethod
    def find(cls) -> None:
        if cls._found is None:
            cluster = find_or_skip(os.environ)
            cls._found = cluster, find_images(cluster)

    @property
    def cluster(self) -> Cluster:
        assert self._found is not None
        return self._found[0]

    @property
    def images(self) -> ClusterImages:
        assert self._found is not None
        return self._found[1]

    @property
    def api(self) -> Client:
        return self._place.client()

    def http_agent(self, **more: Any) -> dict[str, Any]:
        return {**self.program("http_agent.py"), "port": 8000, "health": {"path": "/healthz"}, **more}

    def program(self, name: str, **more: Any) -> dict[str, Any]:
        return {"image": self.images.agents, "command": ["python3", f"/agents/{name}"], **more}

    async def store(self, spec: dict[str, Any], secrets: Mapping[str, bytes] | None = None) -> None:
        own = {"image": self.images.shoal, "service": "NodePort"}
        fleet = Fleet.model_validate({"fleet": self.fleet, "engine": "kubernetes", "kubernetes": own, **spec})
        records: dict[str, SecretRecord] = {}
        if not self._begun:
            self._begun = True
            await self._make_namespace()
        if secrets:
            contents = await self._place.contents(make=True)
            for name, value in secrets.items():
                records[name] = SecretRecord(await contents.put(name, value), time.time(), "the test")
        async with self._place.store(make=True) as store:
            stored = await store.read_fleet()
            await store.write_fleet(
                fleet,
                directory="/",
                by="the test",
                at=time.time(),
                expected_generation=stored.generation if stored else 0,
                secrets=records if secrets is not None else None,
            )
        await self._place.tell_or_start(fleet, {})

    async def start_controller(self) -> None:
        await self._set_controllers(2)
        await self.until(lambda _: True, "the controller to answer")

    async def kill_controller(self) -> None:
        await self._set_controllers(0)
        async with self._kubernetes() as kubernetes, asyncio.timeout(DEADLINE_S):
            while True:
                no_more = await self._makes_no_controllers(kubernetes)
                pods = await self._controllers(kubernetes)
                for pod in pods:
                    await kubernetes.delete(POD, pod["metadata"]["name"], grace_s=0)
                if no_more and not pods:
                    return
                await asyncio.sleep(0.1)

    async def start_another_controller(self) -> str:
        """There is one that waits already."""
        async with self._kubernetes() as kubernetes, asyncio.timeout(DEADLINE_S):
            while True:
                for pod in await self._controllers(kubernetes):
                    if LEADER not in pod["metadata"]["labels"]:
                        said = await self._said_by(kubernetes, pod["metadata"]["name"])
                        if "waits" in said:
                            return said
                await asyncio.sleep(0.2)

    async def controller(self) -> str:
        async with self._kubernetes() as kubernetes:
            (leader,) = [pod for pod in await self._controllers(kubernetes) if LEADER in pod["metadata"]["labels"]]
        return leader["metadata"]["name"]

    async def kill_replica(self, replica: ReplicaView, pid: int) -> None:
        async with self._kubernetes() as kubernetes:
            pods, _ = await kubernetes.list(POD, {FLEET: self.fleet})
            (name,) = [pod["metadata"]["name"] for pod in pods if replica_id(pod) == replica.id]
            argv = ["/bin/sh", "-c", f"kill -9 {pid}"]
            async with (
                open_command(kubernetes, name, CONTAINER, argv, tty=False) as command,
                aclosing(command.output()) as output,
            ):
                said = [piece async for piece in output]
            assert await command.exit_code() in (0, 137), said

    async def every_gateway(self) -> list[str]:
        """The one URL of their Service, which leads to a gateway only a while after it has called the controller."""
        async with self._kubernetes() as kubernetes, asyncio.timeout(DEADLINE_S):
            asked = (await kubernetes.get(DEPLOYMENT, GATEWAY))["spec"]["replicas"]
            while True:
                pods, _ = await kubernetes.list(POD, {FLEET: self.fleet, ROLE: Role.GATEWAY.value})
                if sum(gateway_ready([pod], time.time()) for pod in pods) == len(pods) == asked:
                    break
                await asyncio.sleep(0.1)
        await self.until(lambda status: len(status.gateways) == asked, "the gateways to have called")
        return [await self.url()]

    async def left_behind(self) -> list[str]:
        async with self._kubernetes() as kubernetes:
            return [
                f"{kind.name} {each['metadata']['name']}"
                for kind in (DEPLOYMENT, STATEFUL_SET, POD, SERVICE)
                for each in (await kubernetes.list(kind, {FLEET: self.fleet}))[0]
            ]

    async def controller_log(self) -> str:
        async with self._kubernetes() as kubernetes:
            said = [
                f"{pod['metadata']['name']}:\n{await self._said_by(kubernetes, pod['metadata']['name'])}"
                for pod in await self._controllers(kubernetes)
            ]
        return "\n".join(said)[-4000:]

    async def close(self) -> None:
        if not self._begun:
            return
        async with self._kubernetes() as kubernetes:
            await remove_all(kubernetes, self.fleet, data=True)
            assert await self.left_behind() == []
            await kubernetes.delete(NAMESPACE, self.namespace)

    @asynccontextmanager
    async def _kubernetes(self) -> AsyncGenerator[Kubernetes]:
        async with self._place.kubernetes() as kubernetes:
            yield kubernetes

    async def _controllers(self, kubernetes: Kubernetes) -> list[dict[str, Any]]:
        return (await kubernetes.list(POD, {FLEET: self.fleet, ROLE: Role.CONTROLLER.value}))[0]

    async def _set_controllers(self, count: int) -> None:
        async with self._kubernetes() as kubernetes:
            await kubernetes.patch(DEPLOYMENT, CONTROLLER, {"spec": {"replicas": count}})

    async def _makes_no_controllers(self, kubernetes: Kubernetes) -> bool:
        """Whether who makes the pods knows that there are to be none: until then it makes others for those deleted."""
        sets, _ = await kubernetes.list(REPLICA_SET, {FLEET: self.fleet, ROLE: Role.CONTROLLER.value})
        return all(
            each["spec"]["replicas"] == 0 and each["status"].get("observedGeneration") == each["metadata"]["generation"]
            for each in sets
        )

    async def _said_by(self, kubernetes: Kubernetes, pod: str) -> str:
        """Nothing, as long as its container is still being made."""
        try:
            async with aclosing(kubernetes.logs(pod, params={})) as lines:
                return "\n".join([line async for line in lines])
        except KubernetesError as error:
            if error.status == 400:
                return ""
            raise

    async def _make_namespace(self) -> None:
        """Ours, so that nobody waits for its end; with a policy by which agents tell the test what they did."""
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "to-the-test"},
            "spec": {
                "podSelector": {},
                "policyTypes": ["Egress"],
                "egress": [{"to": [{"ipBlock": {"cidr": f"{self.cluster.host}/32"}}]}],
            },
        }
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        async with self._kubernetes() as kubernetes:
            await kubernetes.create(NAMESPACE, namespace)
            await kubernetes.apply(NETWORK_POLICY, policy)
