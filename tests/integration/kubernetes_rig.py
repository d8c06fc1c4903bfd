"""The engine on a namespace of a real Kubernetes, without a controller, and what its tests wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from kubernetes_namespace import a_namespace

from shoal.core.action import Action, EnsureRevision
from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.core.revision import revision_of, template_of
from shoal.engines.kubernetes.api import Kind, Kubernetes
from shoal.engines.kubernetes.api.kinds import NAMESPACE, SERVICE_ACCOUNT
from shoal.engines.kubernetes.engine import KubernetesEngine
from shoal.engines.kubernetes.render_pod import AGENTS_ACCOUNT
from shoal.spec.model import Fleet

FLEET = "shop"
PATIENCE_S = 120.0

SERVES = """
import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("serves", flush=True)
http.server.HTTPServer(("", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
SERVICE: dict[str, Any] = {"command": ["python3", "-c", SERVES], "port": 8000, "stop_grace_period": "1s"}

Found = TypeVar("Found")


@dataclass(frozen=True)
class Rig:
    """An engine that watches a namespace."""

    kubernetes: Kubernetes
    engine: KubernetesEngine
    image: str

    def ensure(self, name: str, agent: dict[str, Any], environment: dict[str, str] | None = None) -> EnsureRevision:
        """The action for one agent."""
        queues = {"queues": {agent["queue"]: {}}} if "queue" in agent else {}
        document = {"fleet": FLEET, **queues, "agents": {name: {"image": self.image, **agent}}}
        template = template_of(Fleet.model_validate(document), name, {})
        return EnsureRevision(name, revision_of(template), template, environment or {})

    async def act(self, *actions: Action) -> None:
        """All of them, of which none may fail."""
        assert await self.engine.act(actions) == ()

    async def until(self, agent: str, look: Callable[[AgentObserved], Found | None]) -> Found:
        """What `look` gives once it gives something, however often it has to look."""
        seen = AgentObserved(agent)
        try:
            async with asyncio.timeout(PATIENCE_S):
                changes = self.engine.changes()
                while True:
                    seen = (await self.engine.observe()).agents.get(agent, AgentObserved(agent))
                    if (found := look(seen)) is not None:
                        return found
                    await anext(changes)
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:g}s: {seen}") from None

    async def ready(self, agent: str, count: int) -> tuple[Replica, ...]:
        """Its replicas, once so many are ready and no others are there."""
        return await self.until(
            agent, lambda a: a.replicas if len(a.replicas) == count and all(r.ready for r in a.replicas) else None
        )

    async def phase(self, agent: str, phase: Phase) -> Replica:
        """The first replica that gets there."""
        return await self.until(agent, lambda a: next((r for r in a.replicas if r.phase is phase), None))

    async def names(self, kind: Kind) -> set[str]:
        """Of the objects of a kind that are Shoal's."""
        found, _ = await self.kubernetes.list(kind, {"shoal.dev/fleet": FLEET})
        return {each["metadata"]["name"] for each in found}


@asynccontextmanager
async def a_rig(image: str) -> AsyncGenerator[Rig]:
    """In a namespace that lets in nothing but what is *restricted*."""
    async with a_namespace() as kubernetes:
        await restrict(kubernetes)
        async with run_engine(kubernetes) as engine:
            yield Rig(kubernetes, engine, image)


@asynccontextmanager
async def run_engine(kubernetes: Kubernetes) -> AsyncGenerator[KubernetesEngine]:
    """With its watches."""
    engine = KubernetesEngine(kubernetes, FLEET)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(engine.run())
        try:
            yield engine
        finally:
            watching.cancel()


async def restrict(kubernetes: Kubernetes) -> None:
    """The Pod Security Standard, and whom agents run as."""
    level = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await kubernetes.patch(NAMESPACE, kubernetes.namespace, level)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": AGENTS_ACCOUNT}}
    await kubernetes.create(SERVICE_ACCOUNT, account)
