"""On Kubernetes: 1,000 agents rendered, applied, and applied again, against as much by kubectl.

The agents are workers, on simulated nodes: a service's replicas there would answer no gateway, so that nothing would
ever be settled. Each is a Deployment and a Secret with its broker's URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path
from typing import Any

from bench.kubernetes_fleet import KubernetesFleet, on_kubernetes
from bench.kubernetes_plain import PLAIN, plain_namespace
from bench.row import Goal, Row
from shoal.core.action import EnsureRevision
from shoal.core.revision import revision_of, template_of
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.informer import Informer
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT
from shoal.engines.kubernetes.names import FLEET, ROLE, Role
from shoal.engines.kubernetes.render import Settings, render_revision, render_wiring_secret
from shoal.engines.kubernetes.render_pod import private_variables
from shoal.spec.model import Fleet
from testbed.kubernetes import life
from testbed.kubernetes.bed import KubeBed, KubeShape
from testbed.kubernetes.simulation import MARK, simulate

AGENTS = 1000
NODES = 40
_APPLY_S = 600.0
_PLACEMENT = {"require": {MARK: "fake"}}
_ENVIRONMENT = {"SHOAL_QUEUE_TASKS_URL": "nats://agent:password@shoal-broker:4222"}

Object = dict[str, Any]


def run(quick: bool) -> list[Row]:
    """Ours and kubectl's in turns, each from nothing."""
    rendered = tuple(_render_s() for _ in range(3))
    turns = [asyncio.run(_turn()) for _ in range(1 if quick else 3)]
    first, first_kubectl, again, again_kubectl, settled = (tuple(each) for each in zip(*turns, strict=True))
    seconds = ", ".join(f"{each:.1f}" for each in settled)
    return [
        Row("kubernetes", f"{AGENTS:,} agents rendered", "s", ours=rendered, goal=Goal(2.0)),
        Row(
            "kubernetes", f"{AGENTS:,} agents, first `up` until all is applied", "s", ours=first,
            baseline=first_kubectl, compare="ratio", goal=Goal(0.5),
            note="baseline: `kubectl apply --server-side` of as many Deployments and Services; ours settled after "
            f"{seconds} s",
        ),
        Row(
            "kubernetes", f"{AGENTS:,} agents, `up` with nothing changed, against its first apply", "s", ours=again,
            baseline=first_kubectl, compare="ratio", goal=Goal(0.1), note="baseline: the first `kubectl apply`",
        ),
        Row(
            "kubernetes", f"{AGENTS:,} agents, the same, against its second", "s", ours=again,
            baseline=again_kubectl, compare="ratio", note="baseline: the same `kubectl apply` again",
        ),
    ]  # fmt: skip


async def _turn() -> tuple[float, float, float, float, float]:
    with on_kubernetes("bench-many") as fleet, simulated(fleet.bed, NODES):
        write_many(fleet, 1)
        first_s, settled_s = await _up(fleet)
        again_s = await _timed(fleet.shoal, "up", "-d", "-y", timeout_s=_APPLY_S)
        path = fleet.directory / "plain.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": render_plain(fleet.image)}))
        async with plain_namespace(fleet.place.access()):
            by_kubectl = [await _timed(_kubectl_apply, fleet.bed, path) for _ in range(2)]
    return first_s, by_kubectl[0], again_s, by_kubectl[1], settled_s


def write_many(fleet: KubernetesFleet, replicas: int) -> None:
    """The file of a fleet of so many workers, on one queue, with so many replicas each."""
    fleet.write(_agents(fleet.image, replicas))


def render_many() -> list[Object]:
    """All that makes those agents known to the cluster."""
    fleet = Fleet.model_validate({"fleet": "many", "agents": _agents("agents", 1)})
    found: list[Object] = []
    for name in fleet.agents:
        template = template_of(fleet, name, {})
        action = EnsureRevision(name, revision_of(template), template, _ENVIRONMENT)
        private = private_variables(name, _ENVIRONMENT, action.revision)
        found += render_revision(fleet.fleet, action, private, Settings())
        found.append(render_wiring_secret(fleet.fleet, name, private))
    return found


def _agents(image: str, replicas: int) -> dict[str, Any]:
    agent = {"image": image, "command": ["serve"], "queue": "tasks", "scale": replicas, "placement": _PLACEMENT}
    return {name_of(number): agent for number in range(AGENTS)}


def _render_s() -> float:
    began = time.monotonic()
    render_many()
    return time.monotonic() - began


def name_of(number: int) -> str:
    return f"agent-{number:04d}"


@contextlib.contextmanager
def simulated(bed: KubeBed, nodes: int) -> Generator[None]:
    """So many nodes beside the others."""
    try:
        simulate(bed, nodes)
        yield
    finally:
        simulate(bed, 0)


def render_plain(image: str) -> list[Object]:
    """As many Deployments of one pod, there too, and a Service for each."""
    found: list[Object] = []
    for name in map(name_of, range(AGENTS)):
        labels = {"app": name}
        pod = {
            "nodeSelector": {MARK: "fake"},
            "tolerations": [{"key": MARK, "operator": "Equal", "value": "fake"}],
            "containers": [{"name": "agent", "image": image, "command": ["serve"]}],
        }
        template = {"metadata": {"labels": labels}, "spec": pod}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        found.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})
        service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]}
        found.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service})
    return found


async def _up(fleet: KubernetesFleet) -> tuple[float, float]:
    """Seconds of the first `up -d`: until all is applied, and until it says that all is settled."""
    began = time.monotonic()
    async with fleet.place.kubernetes() as kubernetes, _applied(kubernetes, fleet.name) as applied:
        settled_s = await _timed(fleet.shoal, "up", "-d", "-y", "--wait-timeout", "10m", timeout_s=_APPLY_S)
        return await applied - began, settled_s


@contextlib.asynccontextmanager
async def _applied(kubernetes: Kubernetes, fleet: str) -> AsyncGenerator[asyncio.Future[float]]:
    """When all Deployments were there, with the count that is wished."""
    done = asyncio.get_running_loop().create_future()
    scaled: set[str] = set()

    def note(item: Mapping[str, Any] | None) -> None:
        for each in informer.items.values() if item is None else [item]:
            if each["spec"]["replicas"]:
                scaled.add(each["metadata"]["name"])
        if len(scaled) == AGENTS and not done.done():
            done.set_result(time.monotonic())

    informer = Informer(kubernetes, DEPLOYMENT, {FLEET: fleet, ROLE: Role.REVISION.value}, note)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(informer.run())
        try:
            yield done
        finally:
            watching.cancel()


async def _timed(work: Any, *arguments: Any, **more: Any) -> float:
    began = time.monotonic()
    await asyncio.to_thread(work, *arguments, **more)
    return time.monotonic() - began


def _kubectl_apply(bed: KubeBed, path: Path) -> None:
    shape = bed.kube_shape.read() or KubeShape()
    command = [str(life.prepare(bed, shape.version) / "kubectl"), "--kubeconfig", str(bed.kubeconfig), "-n", PLAIN]
    command += ["apply", "--server-side", "-f", str(path)]
    subprocess.run(command, capture_output=True, timeout=_APPLY_S, check=True)
