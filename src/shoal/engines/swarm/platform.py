"""What Shoal runs on a Swarm beside the agents: a gateway and an agent of its own on each node, and where there are
queues one broker, on the node that has its volume.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shoal.core.broker import ADMIN_USER, broker_url, broker_users, render_config
from shoal.core.wiring import Wiring
from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker, DockerError
from shoal.engines.swarm.images import Images
from shoal.engines.swarm.names import Role, fleet_labels, object_name, own_name
from shoal.engines.swarm.render import Spec
from shoal.engines.swarm.render_own import (
    BROKER_PORT,
    CALLS_PORT,
    CONTENT,
    STATE_DIRECTORY,
    Own,
    render_broker,
    render_gateway,
    render_node,
)
from shoal.errors import EngineError
from shoal.spec.model import Fleet

_READY_S = 30.0
_LOOK_S = 0.1


class SwarmPlatform:
    """Implements `Platform`. `own` is what was installed; `seed` is what the broker's passwords are made of; `images`
    says how Shoal's own image is pulled."""

    def __init__(self, docker: Docker, own: Own, seed: bytes, images: Images | None = None) -> None:
        self._docker, self._own, self._seed = docker, own, seed
        self._images = images or Images(docker)
        self._done: tuple[Fleet, Wiring] | None = None
        self._lock = asyncio.Lock()

    async def ensure(self, fleet: Fleet) -> Wiring:
        """Makes or adapts gateways, nodes' agents and the broker. With the same fleet object it costs nothing: what
        ends is Swarm's to start again. Raises EngineError."""
        async with self._lock:
            if self._done is not None and self._done[0] is fleet:
                return self._done[1]
            users = broker_users(fleet)
            auth = self._images.auth(self._own.image)
            await ensure_service(self._docker, render_gateway(self._own, fleet.swarm.port), auth)
            await ensure_service(self._docker, render_node(self._own), auth)
            if users:
                await self._ensure_broker(fleet)
            await self._images.renew(fleet.fleet)
            wiring = await self._wire(fleet, users)
            self._done = (fleet, wiring)
            return wiring

    async def remove(self, *, data: bool) -> None:
        """Ends them; what they have on the nodes goes with `data`, by whoever takes the rest away."""
        async with self._lock:
            self._done = None
            for role in (Role.GATEWAY, Role.BROKER, Role.NODE):
                await self._docker.remove_service(own_name(self._own.fleet, role.value))

    async def _ensure_broker(self, fleet: Fleet) -> None:
        """Its configuration is a secret, by its content: other users are another secret, and a start anew."""
        text = render_config(
            fleet,
            passwords={name: self._password(name) for name in broker_users(fleet)},
            admin_password=self._password(""),
            store_dir=f"{STATE_DIRECTORY}/broker",
            port=BROKER_PORT,
            bind="0.0.0.0",
        ).encode()
        name = object_name(fleet.fleet, "shoal-broker", hashlib.sha256(text).hexdigest()[:12])
        key = await self._docker.create_secret(name, text, fleet_labels(fleet.fleet, Role.SECRET))
        own = replace(
            self._own,
            secrets={**self._own.secrets, "nats.conf": key},
            called={**self._own.called, "nats.conf": name},
        )
        node = await self._broker_node()
        await ensure_service(self._docker, render_broker(own, node), self._images.auth(own.image))
        if node is None:
            await self._pin_broker()
        await self._forget_configurations(name)

    async def _broker_node(self) -> str | None:
        """The node that has the queues, once there is one."""
        for config in await self._docker.configs({names.FLEET: self._own.fleet, names.ROLE: Role.PIN.value}):
            if config["Spec"]["Name"] == self._pin_name():
                return config["Spec"]["Labels"][names.NODE]
        return None

    async def _pin_broker(self) -> None:
        name = own_name(self._own.fleet, Role.BROKER.value)
        async with asyncio.timeout(_READY_S):
            while (node := await self._runs_on(name)) is None:  # noqa: ASYNC110 - Swarm tells nobody
                await asyncio.sleep(_LOOK_S)
        labels = fleet_labels(self._own.fleet, Role.PIN, node=node)
        await self._docker.create_config(self._pin_name(), node.encode(), labels)

        def pin(spec: Spec) -> Spec:
            spec["TaskTemplate"]["Placement"] = {"Constraints": [f"node.id=={node}"]}
            return spec

        await self._docker.update_service(name, pin)

    async def _runs_on(self, service: str) -> str | None:
        for task in await self._docker.tasks(service=service, desired_state="running"):
            if task["Status"]["State"] == "running":
                return task["NodeID"]
            if task["Status"].get("Err"):
                raise EngineError(f"the broker does not start: {task['Status']['Err']}")
        return None

    async def _forget_configurations(self, kept: str) -> None:
        prefix = f"{object_name(self._own.fleet, 'shoal-broker')}_"
        for secret in await self._docker.secrets({names.FLEET: self._own.fleet}):
            if secret["Spec"]["Name"].startswith(prefix) and secret["Spec"]["Name"] != kept:
                try:
                    await self._docker.remove_secret(secret["ID"])
                except DockerError:
                    continue  # a task that ends still has it: with the next change

    async def _wire(self, fleet: Fleet, users: tuple[str, ...]) -> Wiring:
        callers = sorted(name for name, agent in fleet.agents.items() if agent.calls)
        host = names.BROKER_HOST
        nodes = [node for node in await self._docker.nodes() if node["Status"]["State"] == "ready"]
        addresses = sorted(node["Status"]["Addr"] for node in nodes if node["Status"].get("Addr"))
        return Wiring(
            bind="0.0.0.0",
            public_port=fleet.swarm.port,
            public_url=f"http://{addresses[0]}:{fleet.swarm.port}" if addresses else None,
            internal_port=CALLS_PORT,
            call_url=dict.fromkeys(callers, f"http://{names.GATEWAY_HOST}:{CALLS_PORT}"),
            broker_url={name: broker_url(name, self._password(name), host, BROKER_PORT) for name in users},
            broker_admin_url=broker_url(ADMIN_USER, self._password(""), host, BROKER_PORT) if users else None,
            gateways=tuple(sorted(node["Description"]["Hostname"] for node in nodes if takes_tasks(node))),
        )

    def _password(self, user: str) -> str:
        """The same as long as the fleet's seed is."""
        return hmac.new(self._seed, f"broker {user}".encode(), hashlib.sha256).hexdigest()[:40]

    def _pin_name(self) -> str:
        return object_name(self._own.fleet, "shoal-pin", "shoal-broker")


def takes_tasks(node: Mapping[str, Any]) -> bool:
    """Whether a global service has one there."""
    return node["Status"]["State"] == "ready" and node["Spec"]["Availability"] == "active"


async def ensure_service(docker: Docker, spec: Spec, auth: str | None = None) -> bool:
    """Makes it, or brings it to what is rendered; says whether there was anything to do."""
    try:
        there = await docker.service(spec["Name"])
    except DockerError as error:
        if error.status != 404:
            raise
        await docker.create_service(spec, auth=auth)
        return True
    if there["Spec"]["Labels"].get(CONTENT) == spec["Labels"][CONTENT]:
        return auth is not None and await docker.update_service(there["ID"], lambda same: same, auth=auth)
    return await docker.update_service(there["ID"], lambda _: spec, auth=auth)
