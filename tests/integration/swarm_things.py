"""What a test makes on a Swarm, and removes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import uuid4

from shoal.engines.swarm.docker import Docker, DockerError

WAITS = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(600)"
PATIENCE_S = 60.0

Found = TypeVar("Found")


class Things:
    """A Docker of the bed and what a test makes there: all of it has the label `run`, by which it is removed."""

    def __init__(self, docker: Docker, image: str) -> None:
        self.docker = docker
        self.image = image
        self.run = uuid4().hex[:8]
        self.labels = {"shoal.test.run": self.run}

    def name(self, what: str) -> str:
        return f"t{self.run}_{what}"

    def spec(self, what: str, *, program: str = WAITS, replicas: int = 1, image: str | None = None) -> dict[str, Any]:
        container = {
            "Image": image or self.image,
            "Command": ["python3", "-c", program],
            "Init": True,
            "Labels": dict(self.labels),
        }
        return {
            "Name": self.name(what),
            "Labels": dict(self.labels),
            "Mode": {"Replicated": {"Replicas": replicas}},
            "EndpointSpec": {"Mode": "dnsrr"},
            "TaskTemplate": {
                "ContainerSpec": container,
                "RestartPolicy": {"Condition": "any", "Delay": 100_000_000},
            },
        }

    async def running(self, service: str, count: int = 1) -> list[dict[str, Any]]:
        """Its tasks, once so many run."""

        async def look() -> list[dict[str, Any]] | None:
            tasks = await self.docker.tasks(service=service, desired_state="running")
            tasks = [task for task in tasks if task["Status"]["State"] == "running"]
            return tasks if len(tasks) == count else None

        return await eventually(look)

    async def remove(self) -> None:
        for service in await self.docker.services(self.labels):
            await self.docker.remove_service(service["ID"])
        for remove, found in (
            (self.docker.remove_network, await self.docker.networks(self.labels)),
            (self.docker.remove_config, await self.docker.configs(self.labels)),
            (self.docker.remove_secret, await self.docker.secrets(self.labels)),
        ):
            for one in found:

                async def gone(remove: Callable[[str], Awaitable[None]] = remove, one: Any = one) -> bool:
                    with contextlib.suppress(DockerError):
                        await remove(one.get("ID") or one["Id"])
                        return True
                    return False

                await eventually(gone)


async def eventually(look: Callable[[], Awaitable[Found | None]]) -> Found:
    """What `look` gives once it gives something."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if found := await look():
            return found
        await asyncio.sleep(0.05)
    raise TimeoutError(look)
