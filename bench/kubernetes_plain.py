"""What plain Kubernetes does with the same program: a Deployment and a Service, its own update and autoscaler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.engines.kubernetes.api import Access, Kubernetes
from shoal.engines.kubernetes.api.kinds import AUTOSCALER, DEPLOYMENT, NAMESPACE, POD, SERVICE
from shoal.engines.kubernetes.read import condition

PLAIN = "bench-plain"  # the namespace
NAME = "web"
LABELS = {"app": NAME}
NODE_PORT = 30091
_PATIENCE_S = 180.0
_LOOK_S = 0.1

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Program:
    """What a pod runs. `leaves_s` is the sleep before its SIGTERM that people are told to add."""

    image: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    leaves_s: int = 0


def render_deployment(program: Program, count: int) -> Object:
    """As people write it: a readiness probe each second, and no field that Kubernetes has a default for."""
    container: Object = {
        "name": NAME,
        "image": program.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(program.command),
        "env": [{"name": name, "value": value} for name, value in {"PORT": "8000", **program.environment}.items()],
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8000}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "100m"}},
    }
    if program.leaves_s:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": program.leaves_s}}}
    # Its program is no PID 1 either, as in Shoal's pods.
    pod: Object = {"shareProcessNamespace": True, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME},
        "spec": {
            "replicas": count,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": pod},
        },
    }


def render_service() -> Object:
    """At a port of every node, as Shoal's gateways are."""
    port = {"port": 80, "targetPort": 8000, "nodePort": NODE_PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME},
        "spec": {"type": "NodePort", "selector": LABELS, "ports": [port]},
    }


def render_autoscaler(most: int) -> Object:
    """What `kubectl autoscale deployment web --max N` makes: 80 % of what pods ask for, and all else by default."""
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": NAME},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "minReplicas": 1,
            "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }


class Plain:
    """The Deployment with its Service, in a namespace of their own."""

    def __init__(self, kubernetes: Kubernetes, program: Program, count: int) -> None:
        self.kubernetes = kubernetes
        self._program, self._count = program, count

    async def start(self) -> None:
        """They serve."""
        await self.kubernetes.apply(SERVICE, render_service())
        await self.kubernetes.apply(DEPLOYMENT, render_deployment(self._program, self._count))
        await self.settled()

    async def scale(self, count: int) -> None:
        """`kubectl scale`."""
        self._count = count
        await self.kubernetes.patch(DEPLOYMENT, NAME, {"spec": {"replicas": count}}, "scale")

    async def change(self, version: int) -> None:
        """`kubectl set env` and `kubectl rollout status`: another variable; returns once no pod of the old is left."""
        environment = {**self._program.environment, "VERSION": f"{version}"}
        program = Program(self._program.image, self._program.command, environment, self._program.leaves_s)
        await self.kubernetes.apply(DEPLOYMENT, render_deployment(program, self._count), force=True)
        await self.settled()

    async def autoscale(self, most: int) -> None:
        """`kubectl autoscale`; returns once its metrics are there."""
        await self.kubernetes.apply(AUTOSCALER, render_autoscaler(most))
        await _until(self._is_measured)

    async def settled(self) -> None:
        """Until as many pods as are wished are ready, and there is no other."""
        await _until(self._is_settled)

    async def _is_settled(self) -> bool:
        deployment = await self.kubernetes.get(DEPLOYMENT, NAME)
        status = deployment.get("status", {})
        if status.get("observedGeneration") != deployment["metadata"]["generation"]:
            return False
        pods, _ = await self.kubernetes.list(POD, LABELS)
        counts = [status.get("updatedReplicas"), status.get("readyReplicas"), len(pods)]
        return counts == [self._count] * len(counts)

    async def _is_measured(self) -> bool:
        autoscaler = await self.kubernetes.get(AUTOSCALER, NAME)
        return condition(autoscaler, "ScalingActive").get("status") == "True"


@contextlib.asynccontextmanager
async def plain_namespace(access: Access) -> AsyncGenerator[Kubernetes]:
    """One without anything in it; gone afterwards."""
    async with Kubernetes(access, PLAIN) as kubernetes:
        await kubernetes.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLAIN}})
        try:
            yield kubernetes
        finally:
            await kubernetes.delete(NAMESPACE, PLAIN)

            async def gone() -> bool:
                return await kubernetes.find(NAMESPACE, PLAIN) is None

            await _until(gone)


@contextlib.asynccontextmanager
async def plain_service(access: Access, program: Program, count: int) -> AsyncGenerator[Plain]:
    """Of so many pods, which serve; gone afterwards."""
    async with plain_namespace(access) as kubernetes:
        plain = Plain(kubernetes, program, count)
        await plain.start()
        yield plain


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(_LOOK_S)
