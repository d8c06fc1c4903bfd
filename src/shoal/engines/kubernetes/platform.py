"""What Shoal runs in the cluster beside the agents: gateways, and where there are queues one broker with a volume."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from shoal.core.broker import ADMIN_USER, broker_url, broker_users, render_config
from shoal.core.wiring import Wiring
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, POD, SECRET, SERVICE, STATEFUL_SET
from shoal.engines.kubernetes.applying import ensure
from shoal.engines.kubernetes.names import BROKER, GATEWAY, Role, fleet_labels, object_name
from shoal.engines.kubernetes.render_own import (
    BROKER_PORT,
    CALLS,
    CALLS_PORT,
    PUBLIC_PORT,
    STATE_DIRECTORY,
    Own,
    pulls_of,
    render_broker,
    render_gateway,
)
from shoal.spec.model import Fleet

_PLACED_S, _LOOK_S = 5.0, 0.1


class KubernetesPlatform:
    """Implements `Platform`. `image` is Shoal's own; `seed` is what the broker's passwords are made of."""

    def __init__(self, kubernetes: Kubernetes, fleet: str, image: str, seed: bytes) -> None:
        self._kubernetes, self._fleet, self._image, self._seed = kubernetes, fleet, image, seed
        self._done: tuple[Fleet, Wiring] | None = None
        self._lock = asyncio.Lock()

    async def ensure(self, fleet: Fleet) -> Wiring:
        """Makes or adapts gateways and the broker. With the same fleet object it costs nothing: what ends is
        Kubernetes' to start again. Raises EngineError."""
        async with self._lock:
            if self._done is not None and self._done[0] is fleet:
                return self._done[1]
            own = Own(self._fleet, self._kubernetes.namespace, self._image, fleet.kubernetes, pulls_of(fleet))
            users = broker_users(fleet)
            items = render_gateway(own)
            if users:
                items += render_broker(own, await self._configure_broker(fleet))
            await ensure(self._kubernetes, self._fleet, items)
            wiring = await self._wire(fleet, users)
            self._done = (fleet, wiring)
            return wiring

    async def remove(self, *, data: bool) -> None:
        """Ends them; their volumes go with `data`, by whoever takes the rest away."""
        async with self._lock:
            self._done = None
            await self._kubernetes.delete(DEPLOYMENT, GATEWAY)
            await self._kubernetes.delete(STATEFUL_SET, BROKER)
            for service in (GATEWAY, CALLS, BROKER):
                await self._kubernetes.delete(SERVICE, service)

    async def _configure_broker(self, fleet: Fleet) -> str:
        """Its configuration is a Secret, by its content: other users are another one, and a start anew."""
        text = render_config(
            fleet,
            passwords={name: self._password(name) for name in broker_users(fleet)},
            admin_password=self._password(""),
            store_dir=f"{STATE_DIRECTORY}/broker",
            port=BROKER_PORT,
            bind="0.0.0.0",
        )
        name = object_name("shoal-broker", hashlib.sha256(text.encode()).hexdigest()[:12])
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": fleet_labels(self._fleet, Role.BROKER)},
            "stringData": {"nats.conf": text},
        }
        try:
            await self._kubernetes.create(SECRET, secret)
        except KubernetesError as error:
            if error.reason != "AlreadyExists":
                raise
        ours = {names.FLEET: self._fleet, names.ROLE: Role.BROKER.value}
        for old in (await self._kubernetes.list(SECRET, ours))[0]:
            if old["metadata"]["name"] != name:
                await self._kubernetes.delete(SECRET, old["metadata"]["name"])
        return name

    async def _wire(self, fleet: Fleet, users: tuple[str, ...]) -> Wiring:
        callers = sorted(name for name, agent in fleet.agents.items() if agent.calls)
        return Wiring(
            bind="0.0.0.0",
            public_port=PUBLIC_PORT,
            public_url=await self._reached_at(fleet),
            internal_port=CALLS_PORT,
            call_url=dict.fromkeys(callers, f"http://{CALLS}:{CALLS_PORT}"),
            broker_url={name: broker_url(name, self._password(name), BROKER, BROKER_PORT) for name in users},
            broker_admin_url=broker_url(ADMIN_USER, self._password(""), BROKER, BROKER_PORT) if users else None,
        )

    async def _reached_at(self, fleet: Fleet) -> str:
        """The URL of the gateway for who stands outside, as far as that is known now."""
        service = await self._kubernetes.get(SERVICE, GATEWAY)
        kind, port = service["spec"]["type"], service["spec"]["ports"][0]
        if kind == "LoadBalancer":
            given: list[Mapping[str, Any]] = service["status"].get("loadBalancer", {}).get("ingress") or []
            if given:
                return f"http://{given[0].get('hostname') or given[0].get('ip')}:{port['port']}"
        if kind != "ClusterIP":
            ours = {names.FLEET: self._fleet, names.ROLE: Role.GATEWAY.value}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PLACED_S):
                    while not (hosts := await self._hosts(ours)):  # noqa: ASYNC110 - once, for a moment
                        await asyncio.sleep(_LOOK_S)
                return f"http://{hosts[0]}:{port['nodePort']}"
        return f"http://{GATEWAY}.{self._kubernetes.namespace}:{port['port']}"

    async def _hosts(self, labels: Mapping[str, str]) -> list[str]:
        """Addresses of nodes that have such pods."""
        pods, _ = await self._kubernetes.list(POD, labels)
        return sorted({pod["status"]["hostIP"] for pod in pods if pod.get("status", {}).get("hostIP")})

    def _password(self, user: str) -> str:
        """The same as long as the fleet's seed is."""
        return hmac.new(self._seed, f"broker {user}".encode(), hashlib.sha256).hexdigest()[:40]
