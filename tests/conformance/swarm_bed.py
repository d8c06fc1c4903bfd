"""Conformance cases on Docker Swarm, with the controller as a service of the fleet."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from shoal.api.client import Client
from shoal.api.views import ReplicaView
from shoal.cli.contexts import FleetContext, load_context, remote_client, save_context
from shoal.control.document_store import DocumentStore
from shoal.control.store import SecretRecord, named_digests
from shoal.control.swarm_contents import SwarmContents
from shoal.control.swarm_keeper import SwarmKeeper
from shoal.engines.swarm.capabilities import CAPABILITIES
from shoal.engines.swarm.docker import Docker
from shoal.engines.swarm.install import Keys, install
from shoal.engines.swarm.names import AGENT, FLEET, ORDINAL, TASK, Role, fleet_labels, own_name, replica_id, role_of
from shoal.engines.swarm.removal import remove_all
from shoal.pki import Authority, JoinToken
from shoal.spec.model import Fleet
from tests.conformance.bed import DEADLINE_S, FleetBed
from tests.swarm_bed import Swarm, find_or_skip

_PORTS = {"conformance": (18080, 17444), "neighbour": (18081, 17445)}  # public, and the controller's


class SwarmBed(FleetBed):
    """See `FleetBed`."""

    engine = "swarm"
    capabilities = CAPABILITIES
    most_files = 2**21
    _found: ClassVar[Swarm | None] = None

    def __init__(self, home: Path, http: aiohttp.ClientSession, fleet: str = "conformance") -> None:
        super().__init__(home, http, fleet)
        self.environ["DOCKER_HOST"] = self.swarm.endpoint.host
        self.sink_host = self.swarm.host
        self.port, self._admin_port = _PORTS[fleet]
        self._api: Client | None = None
        self._begun = False

    @classmethod
    def find(cls) -> None:
        cls._found = cls._found or find_or_skip(os.environ)

    @property
    def swarm(self) -> Swarm:
        assert self._found is not None
        return self._found

    @property
    def api(self) -> Client:
        assert self._api is not None
        return self._api

    def http_agent(self, **more: Any) -> dict[str, Any]:
        return {**self.program("http_agent.py"), "port": 8000, "health": {"path": "/healthz"}, **more}

    def program(self, name: str, **more: Any) -> dict[str, Any]:
        return {"image": self.swarm.agents_image, "command": ["python3", f"/agents/{name}"], **more}

    async def store(self, spec: dict[str, Any], secrets: Mapping[str, bytes] | None = None) -> None:
        own = {"port": self.port, "admin_port": self._admin_port, "image": self.swarm.shoal_image}
        fleet = Fleet.model_validate({"fleet": self.fleet, "engine": "swarm", "swarm": own, **spec})
        records: dict[str, SecretRecord] = {}
        self._begun = True
        if secrets:
            contents = await SwarmContents.open(lambda: Docker(self.swarm.endpoint), self.fleet, make=True)
            for name, value in secrets.items():
                records[name] = SecretRecord(await contents.put(name, value), time.time(), "the test")
        async with Docker(self.swarm.endpoint) as docker:
            store = DocumentStore(SwarmKeeper(docker, self.fleet))
            stored = await store.read_fleet()
            await store.write_fleet(
                fleet,
                directory="/",
                by="the test",
                at=time.time(),
                expected_generation=stored.generation if stored else 0,
                secrets=records if secrets is not None else None,
            )
            await self._install(docker, await named_digests(store))
        if await self._controllers() == 0:
            await self.start_controller()
        await self.until(lambda _: True, "the controller to answer")
        await self.api.apply()

    async def start_controller(self) -> None:
        await self._set_controllers(1)
        await self.until(lambda _: True, "the controller to answer")

    async def kill_controller(self) -> None:
        await self._set_controllers(0)
        for endpoint in self.swarm.endpoints.values():
            async with Docker(endpoint) as docker:
                for container in await docker.containers(fleet_labels(self.fleet, Role.CONTROLLER)):
                    await docker.kill(container["Id"])

    async def start_another_controller(self) -> str:
        async with Docker(self.swarm.endpoint) as docker:
            spec = (await docker.service(own_name(self.fleet, Role.CONTROLLER.value)))["Spec"]
            spec["Name"] += "-second"
            del spec["EndpointSpec"]["Ports"]
            for network in spec["TaskTemplate"]["Networks"]:
                network.pop("Aliases", None)
            second = await docker.create_service(spec)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    while "waits" not in (said := await self._said_by(docker, second)):
                        await asyncio.sleep(0.2)
            finally:
                await docker.remove_service(second)
        return said

    async def _said_by(self, docker: Docker, service: str) -> str:
        return "\n".join([line.text async for line in docker.service_logs(service)])

    async def controller(self) -> str:
        async with Docker(self.swarm.endpoint) as docker:
            (task,) = await docker.tasks(service=own_name(self.fleet, Role.CONTROLLER.value), desired_state="running")
        return task["ID"]

    async def kill_replica(self, replica: ReplicaView, pid: int) -> None:
        for endpoint in self.swarm.endpoints.values():
            async with Docker(endpoint) as docker:
                for container in await docker.containers({FLEET: self.fleet}):
                    labels = container["Labels"]
                    if AGENT in labels and replica_id(labels[AGENT], labels[TASK], labels.get(ORDINAL)) == replica.id:
                        await docker.kill(container["Id"])
                        return
        raise AssertionError(f"{replica.id} has no container")

    async def left_behind(self) -> list[str]:
        async with Docker(self.swarm.endpoint) as docker:
            services = await docker.services({FLEET: self.fleet})
            networks = await docker.networks({FLEET: self.fleet})
        run = [each["Spec"] for each in services if role_of(each["Spec"]["Labels"]) != Role.STATE]  # which has no task
        return [each["Name"] for each in (*run, *networks)]

    async def controller_log(self) -> str:
        async with Docker(self.swarm.endpoint) as docker:
            return (await self._said_by(docker, own_name(self.fleet, Role.CONTROLLER.value)))[-3000:]

    async def url(self) -> str:
        return self._urls()[0]

    async def every_gateway(self) -> list[str]:
        urls = self._urls()
        await self.until(lambda status: len(status.gateways) == len(urls), "the gateway of each node")
        return urls

    def _urls(self) -> list[str]:
        return [f"http://{address}:{self.port}" for address in self.swarm.addresses.values()]

    async def close(self) -> None:
        if not self._begun:
            return
        async with Docker(self.swarm.endpoint) as docker:
            await remove_all(docker, self.fleet, data=True)
        assert await self.left_behind() == [] == await self._volumes()

    async def _install(self, docker: Docker, named: Collection[str]) -> None:
        """What `shoal up` does."""
        if self._api is not None:
            await install(docker, self.fleet, self.swarm.shoal_image, self._admin_port, None, named)
            return
        authority = Authority.create(self.fleet, time.time())
        token = str(JoinToken.create(authority.certificate_pem))
        keys = Keys(authority.certificate_pem.encode(), authority.key_pem.encode(), token.encode())
        person = authority.issue("client", "the-test", now=time.time(), ttl_s=86400)
        addresses = tuple(f"{address}:{self._admin_port}" for address in self.swarm.addresses.values())
        save_context(self.environ, FleetContext(self.fleet, "swarm", None, addresses, person.pem))
        await install(docker, self.fleet, self.swarm.shoal_image, self._admin_port, keys, named)
        context = load_context(self.environ, self.fleet)
        assert context is not None
        self._api = remote_client(self.environ, context)

    async def _controllers(self) -> int:
        """How many there are to be."""
        async with Docker(self.swarm.endpoint) as docker:
            service = await docker.service(own_name(self.fleet, Role.CONTROLLER.value))
        return service["Spec"]["Mode"]["Replicated"]["Replicas"]

    async def _set_controllers(self, count: int) -> None:
        def change(spec: dict[str, Any]) -> dict[str, Any]:
            spec["Mode"]["Replicated"]["Replicas"] = count
            return spec

        async with Docker(self.swarm.endpoint) as docker:
            await docker.update_service(own_name(self.fleet, Role.CONTROLLER.value), change)

    async def _volumes(self) -> list[str]:
        """The fleet's, on whichever node."""
        found: list[str] = []
        for endpoint in self.swarm.endpoints.values():
            async with Docker(endpoint) as docker:
                found += [volume["Name"] for volume in await docker.volumes({FLEET: self.fleet})]
        return found
