"""What Shoal runs in the cluster beside the agents: gateways, and where there are queues one broker with a volume."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shoal.core.broker import broker_users
from shoal.core.wiring import Wiring
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kind, Kubernetes
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, POD, SECRET, SERVICE, STATEFUL_SET, kind_of
from shoal.engines.kubernetes.applying import ensure
from shoal.engines.kubernetes.names import BROKER, GATEWAY, Role
from shoal.engines.kubernetes.render_own import CALLS, Own, render_broker, render_gateway
from shoal.engines.kubernetes.waiting import wait_runs
from shoal.engines.kubernetes.wiring import render_broker_secret, wiring_of
from shoal.spec.model import Fleet

_PLACED_S, _LOOK_S = 5.0, 0.1
_SECRET_S = 30.0


async def claims_of_broker(kubernetes: Kubernetes) -> Sequence[dict[str, Any]]:
    """What the broker's claim was made from: the file may name another size or class by now."""
    there = await kubernetes.find(STATEFUL_SET, BROKER) or {}
    return there.get("spec", {}).get("volumeClaimTemplates", ())


class KubernetesPlatform:
    """Implements `Platform`. `image` is Shoal's own; `seed` is what the broker's passwords are made of; `is_there` says
    of an object by kind and name whether the cluster has it."""

    def __init__(
        self, kubernetes: Kubernetes, fleet: str, image: str, seed: bytes, is_there: Callable[[Kind, str], bool]
    ) -> None:
        self._kubernetes, self._fleet, self._image, self._seed = kubernetes, fleet, image, seed
        self._is_there = is_there
        self._done: tuple[Fleet, Wiring] | None = None
        self._made: list[tuple[Kind, str]] = []
        self._configuration: str | None = None
        self._seen_at = 0.0  # by the loop's clock
        self._lock = asyncio.Lock()

    async def ensure(self, fleet: Fleet) -> Wiring:
        """Makes or adapts gateways and the broker. With the same fleet object it costs nothing, unless somebody removed
        one of these: what ends is Kubernetes' to start again. Raises EngineError."""
        async with self._lock:
            there = all(self._is_there(*each) for each in self._made)
            there = there and await self._is_configured()
            if there and self._done is not None and self._done[0] is fleet:
                return self._done[1]
            own = Own.of(fleet, self._kubernetes.namespace, self._image)
            items = render_gateway(own)
            configuration = await self._configure_broker(fleet) if broker_users(fleet) else None
            if configuration is not None:
                items += render_broker(own, configuration, await claims_of_broker(self._kubernetes))
            applied = await ensure(self._kubernetes, self._fleet, items)
            if configuration is not None and any(kind_of(item) is STATEFUL_SET for item in applied):
                await wait_runs(self._kubernetes, BROKER, {names.FLEET: self._fleet, names.ROLE: Role.BROKER.value})
            if configuration is not None:
                await self._forget_configurations(configuration)
            self._made = [(kind_of(item), item["metadata"]["name"]) for item in items]
            self._configuration, self._seen_at = configuration, asyncio.get_running_loop().time()
            wiring = replace(wiring_of(fleet, self._password), public_url=await self._reached_at(fleet))
            self._done = (fleet, wiring)
            return wiring

    async def remove(self, *, data: bool) -> None:
        """Ends them; their volumes go with `data`, by whoever takes the rest away."""
        async with self._lock:
            self._done, self._made = None, []
            await self._kubernetes.delete(DEPLOYMENT, GATEWAY)
            for service in (GATEWAY, CALLS):
                await self._kubernetes.delete(SERVICE, service)
            await self._remove_broker()

    async def prune(self, fleet: Fleet) -> None:
        """Ends the broker where there is no queue any more, once nobody works on what was in one. Its claim stays, and
        with it what it holds: a queue that comes back finds it."""
        async with self._lock:
            in_force = self._done is not None and self._done[0] is fleet
            if in_force and not broker_users(fleet) and self._is_there(STATEFUL_SET, BROKER):
                await self._remove_broker()

    async def _remove_broker(self) -> None:
        await self._kubernetes.delete(STATEFUL_SET, BROKER)
        await self._kubernetes.delete(SERVICE, BROKER)
        await self._forget_configurations(None)

    async def _configure_broker(self, fleet: Fleet) -> str:
        """Makes the Secret that holds its configuration, and gives its name."""
        secret = render_broker_secret(fleet, self._password)
        name = secret["metadata"]["name"]
        await self._kubernetes.make(SECRET, secret)
        return name

    async def _is_configured(self) -> bool:
        """Whether the broker's Secret is there: it is asked for now and then, as nobody watches Secrets."""
        now = asyncio.get_running_loop().time()
        if self._configuration is None or now < self._seen_at + _SECRET_S:
            return True
        self._seen_at = now
        return await self._kubernetes.find(SECRET, self._configuration) is not None

    async def _forget_configurations(self, kept: str | None) -> None:
        """All but the one that the broker is started with."""
        ours = {names.FLEET: self._fleet, names.ROLE: Role.BROKER.value}
        for old in await self._kubernetes.list_metadata(SECRET, ours):
            if old["metadata"]["name"] != kept:
                await self._kubernetes.delete(SECRET, old["metadata"]["name"])

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
