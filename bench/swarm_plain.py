"""What plain Docker Swarm does with the same program: a service found by its name's addresses, and its own update."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from bench.swarm_fleet import AGENT, CLIENT, SwarmFleet
from shoal.engines.swarm.docker import Docker, DockerError

_SERVICE, _CLIENT = "bench_plain_web", "bench_plain_client"
_NS = 10**9
_START_S, _LOOK_S = 60.0, 0.02


class Plain:
    """The service, and a client in its network, which the fleet's gateways are not in."""

    def __init__(self, docker: Docker, fleet: SwarmFleet) -> None:
        self._docker, self._fleet = docker, fleet
        self._network = f"bench_plain_{time.time_ns()}"  # Swarm may still be busy with the one of a run before
        self.network = ""

    async def start(self, count: int) -> None:
        """As many replicas; they serve."""
        self.network = await self._docker.create_network(self._network)
        began = time.monotonic()
        await self._docker.create_service(self._spec(_SERVICE, AGENT, "plain", count, {"PORT": "8000"}))
        await self.served(count, began)

    async def start_client(self, rate: float) -> None:
        """Load from the first node, which stays."""
        variables = {"TARGET": _SERVICE, "RATE": f"{rate:g}"}
        spec = self._spec(_CLIENT, CLIENT, "client", 1, variables)
        spec["TaskTemplate"]["Placement"] = {"Constraints": ["node.role==manager"]}
        await self._docker.create_service(spec)
        await _until(lambda: bool(self._fleet.sink.of("client")))

    def outcomes(self) -> dict[str, int]:
        """What became of the client's requests so far."""
        said = self._fleet.sink.of("client")
        return json.loads(said[-1][1]) if said else {}

    async def scale(self, count: int) -> None:
        """`docker service scale`."""

        def change(spec: dict[str, Any]) -> dict[str, Any]:
            spec["Mode"]["Replicated"]["Replicas"] = count
            return spec

        await self._docker.update_service(_SERVICE, change)

    async def change(self, version: int, count: int) -> None:
        """`docker service update` with another variable; returns when the update is complete."""
        began = time.monotonic()

        def change(spec: dict[str, Any]) -> dict[str, Any]:
            env = spec["TaskTemplate"]["ContainerSpec"]["Env"]
            kept = [each for each in env if not each.startswith("VERSION=")]
            spec["TaskTemplate"]["ContainerSpec"]["Env"] = [*kept, f"VERSION={version}"]
            return spec

        await self._docker.update_service(_SERVICE, change)
        await self.served(count, began)
        await _until(self._is_updated)

    async def served(self, count: int, since: float) -> float:
        """When so many replicas had said that they serve, from a moment on."""
        await _until(lambda: len(self._fleet.sink.of("plain", since)) >= count)
        return sorted(at for at, _ in self._fleet.sink.of("plain", since))[count - 1]

    async def settled(self, count: int) -> None:
        """Until as many tasks run, and no other."""
        await _until(lambda: self._has(count))

    async def remove(self) -> None:
        """All of it."""
        for name in (_CLIENT, _SERVICE):
            await self._docker.remove_service(name)
        await _until(self._is_gone)

    async def _is_updated(self) -> bool:
        return (await self._docker.service(_SERVICE)).get("UpdateStatus", {}).get("State") == "completed"

    async def _has(self, count: int) -> bool:
        tasks = await self._docker.tasks(service=_SERVICE)
        states = [task["Status"]["State"] for task in tasks if task["DesiredState"] == "running"]
        leaving = [task for task in tasks if task["DesiredState"] != "running" and task["Status"]["State"] == "running"]
        return states == ["running"] * count and not leaving

    async def _is_gone(self) -> bool:
        try:
            await self._docker.remove_network(self._network)
        except DockerError:
            return False  # tasks that end still have it
        return True

    def _spec(
        self, name: str, command: Sequence[str], sink: str, count: int, variables: dict[str, str]
    ) -> dict[str, Any]:
        environment = {**variables, "SINK": f"{self._fleet.sink.url}/{sink}", "SHOAL_REPLICA": "{{.Task.ID}}"}
        return {
            "Name": name,
            "Mode": {"Replicated": {"Replicas": count}},
            "EndpointSpec": {"Mode": "dnsrr"},
            "UpdateConfig": {"Parallelism": 1, "Order": "start-first"},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": self._fleet.image,
                    "Command": list(command),
                    "Env": [f"{key}={value}" for key, value in environment.items()],
                    "Init": True,
                    "StopGracePeriod": 10 * _NS,
                },
                "RestartPolicy": {"Condition": "any", "Delay": _NS},
                "Networks": [{"Target": self.network}],
            },
        }


async def _until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(_LOOK_S)


@contextlib.asynccontextmanager
async def plain_service(fleet: SwarmFleet, count: int) -> AsyncGenerator[Plain]:
    """A service of so many replicas; gone afterwards."""
    async with Docker(fleet.endpoint) as docker:
        plain = Plain(docker, fleet)
        try:
            await plain.start(count)
            yield plain
        finally:
            await plain.remove()
