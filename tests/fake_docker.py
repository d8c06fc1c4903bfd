"""A Swarm of values: what Shoal stores in one, with the refusals of a real one, and none of its tasks."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from shoal.engines.swarm.docker import Docker, DockerError, Endpoint
from shoal.errors import Conflict

CONFIG_BYTES = 500 * 1024
NO_LABELS: Mapping[str, str] = {}


class FakeDocker(Docker):
    """Services, configs, secrets and networks; each write takes the next index, as Raft's log does.

    `before_write` is called before each write of a service, as somebody else's chance; `away` makes calls for services
    and configs fail; `writes` counts the services that were written.
    """

    def __init__(self) -> None:
        super().__init__(Endpoint("fake://swarm"))
        self.kept: dict[str, dict[str, dict[str, Any]]] = {
            kind: {} for kind in ("services", "configs", "secrets", "networks")
        }
        self.in_use: set[str] = set()  # what can't be removed, by name
        self.running: list[dict[str, Any]] = []  # tasks
        self.before_write: Callable[[], None] = lambda: None
        self.away: Exception | None = None
        self.writes = 0
        self.now = 1767225600.0  # by which things are stamped: epoch seconds
        self._index = count(1)

    async def service(self, name: str) -> dict[str, Any]:
        return await self._get("services", name)

    async def services(self, labels: Mapping[str, str] = NO_LABELS, *, status: bool = False) -> list[dict[str, Any]]:
        return await self._select("services", labels)

    async def create_service(self, spec: Mapping[str, Any], *, auth: str | None = None) -> str:
        return await self._create("services", spec["Name"], spec, unique=True)

    async def write_service(
        self, service_id: str, version: int, spec: Mapping[str, Any], *, auth: str | None = None
    ) -> None:
        self.before_write()
        service = self._find("services", service_id)
        if service["Version"]["Index"] != version:
            raise Conflict(f"service {service_id} was changed by somebody else at the same time")
        self.writes += 1
        service |= {"Spec": copy.deepcopy(dict(spec)), "Version": {"Index": next(self._index)}}

    async def tasks(
        self, labels: Mapping[str, str] = NO_LABELS, **filters: str | Sequence[str]
    ) -> list[dict[str, Any]]:
        return copy.deepcopy(self.running)

    async def nodes(self) -> list[dict[str, Any]]:
        return []

    async def remove_service(self, name: str) -> None:
        await self._remove("services", name)

    async def config(self, name: str) -> dict[str, Any]:
        return await self._get("configs", name)

    async def configs(self, labels: Mapping[str, str] = NO_LABELS) -> list[dict[str, Any]]:
        return await self._select("configs", labels)

    async def create_config(self, name: str, data: bytes, labels: Mapping[str, str] = NO_LABELS) -> str:
        assert len(data) <= CONFIG_BYTES
        return await self._create("configs", name, _document(name, data, labels))

    async def remove_config(self, name: str) -> None:
        await self._remove("configs", name)

    async def secret(self, name: str) -> dict[str, Any]:
        return _without_data(await self._get("secrets", name))

    async def secrets(self, labels: Mapping[str, str] = NO_LABELS) -> list[dict[str, Any]]:
        return [_without_data(each) for each in await self._select("secrets", labels)]

    async def create_secret(self, name: str, data: bytes, labels: Mapping[str, str] = NO_LABELS) -> str:
        return await self._create("secrets", name, _document(name, data, labels))

    async def remove_secret(self, name: str) -> None:
        await self._remove("secrets", name)

    async def networks(self, labels: Mapping[str, str] = NO_LABELS) -> list[dict[str, Any]]:
        return [{"Id": each["ID"], "Name": each["Spec"]["Name"]} for each in await self._select("networks", labels)]

    async def create_network(
        self,
        name: str,
        labels: Mapping[str, str] = NO_LABELS,
        *,
        driver: str = "overlay",
        attachable: bool = False,
        options: Mapping[str, str] = NO_LABELS,
    ) -> str:
        return await self._create("networks", name, {"Name": name, "Labels": dict(labels)})

    async def _get(self, kind: str, name: str) -> dict[str, Any]:
        return copy.deepcopy(self._find(kind, name))

    def _find(self, kind: str, name: str) -> dict[str, Any]:
        if self.away is not None:
            raise self.away
        for each in self.kept[kind].values():
            if name in {each["ID"], each["Spec"]["Name"]}:
                return each
        raise DockerError(f"{name} not found", status=404, reason=f"{name} not found")

    async def _select(self, kind: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        return [
            copy.deepcopy(each) for each in self.kept[kind].values() if labels.items() <= each["Spec"]["Labels"].items()
        ]

    async def _create(self, kind: str, name: str, spec: Mapping[str, Any], *, unique: bool = False) -> str:
        if name in self.kept[kind]:
            if unique:
                reason = "name conflicts with an existing object"
                raise DockerError(reason, status=409, reason=reason)
            return self.kept[kind][name]["ID"]
        index = next(self._index)
        self.kept[kind][name] = {
            "ID": f"id{index}",
            "Version": {"Index": index},
            "CreatedAt": f"{datetime.fromtimestamp(self.now, UTC):%Y-%m-%dT%H:%M:%S}.123456789Z",
            "Spec": copy.deepcopy(dict(spec)),
        }
        return f"id{index}"

    async def _remove(self, kind: str, name: str) -> None:
        for key, each in list(self.kept[kind].items()):
            if name in {key, each["ID"]}:
                if key in self.in_use:
                    raise DockerError(f"{key} is in use", status=400, reason=f"{key} is in use by a service")
                del self.kept[kind][key]


def _document(name: str, data: bytes, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"Name": name, "Labels": dict(labels), "Data": base64.b64encode(data).decode()}


def _without_data(secret: dict[str, Any]) -> dict[str, Any]:
    return {**secret, "Spec": {key: value for key, value in secret["Spec"].items() if key != "Data"}}
