"""As much of Docker's services and configs as keeps a fleet's state: versions, conflicts, names that are taken."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from shoal.engines.swarm.docker import DockerError
from shoal.errors import Conflict

Json = dict[str, Any]


class FakeSwarm:
    """In the place of `Docker`. `before_write` is called before each write, as somebody else's chance; `away` makes
    every call fail."""

    def __init__(self) -> None:
        self.made: dict[str, Json] = {}
        self.held: dict[str, Json] = {}
        self.writes = 0
        self.away: Exception | None = None
        self.before_write: Callable[[], None] = lambda: None

    async def service(self, name: str) -> Json:
        self._reach()
        if name not in self.made:
            raise DockerError("no such service", status=404, reason="no such service")
        return copy.deepcopy(self.made[name])

    async def create_service(self, spec: Mapping[str, Any]) -> str:
        self._reach()
        if spec["Name"] in self.made:
            raise DockerError("name conflicts", status=409, reason="name conflicts")
        self.made[spec["Name"]] = {"ID": spec["Name"], "Version": {"Index": 1}, "Spec": _plain(spec)}
        return spec["Name"]

    async def write_service(self, service_id: str, version: int, spec: Mapping[str, Any]) -> None:
        self._reach()
        self.before_write()
        if self.made[service_id]["Version"]["Index"] != version:
            raise Conflict("update out of sequence")
        self.writes += 1
        self.made[service_id] = {"ID": service_id, "Version": {"Index": version + 1}, "Spec": _plain(spec)}

    async def update_service(self, name: str, change: Callable[[Json], Json | None]) -> bool:
        service = await self.service(name)
        spec = change(service["Spec"])
        if spec is not None:
            await self.write_service(name, service["Version"]["Index"], spec)
        return spec is not None

    async def config(self, name: str) -> Json:
        self._reach()
        if name not in self.held:
            raise DockerError("no such config", status=404, reason="no such config")
        return self.held[name]

    async def configs(self, labels: Mapping[str, str]) -> list[Json]:
        self._reach()
        return [each for each in self.held.values() if labels.items() <= each["Spec"]["Labels"].items()]

    async def create_config(self, name: str, data: bytes, labels: Mapping[str, str]) -> str:
        self._reach()
        spec = {"Name": name, "Labels": dict(labels), "Data": base64.b64encode(data).decode()}
        self.held.setdefault(name, {"ID": name, "CreatedAt": "2026-01-01T00:00:00.000000000Z", "Spec": spec})
        return name

    async def remove_config(self, name: str) -> None:
        self._reach()
        self.held.pop(name, None)

    def _reach(self) -> None:
        if self.away is not None:
            raise self.away


def _plain(spec: Mapping[str, Any]) -> Json:
    return json.loads(json.dumps(spec))
