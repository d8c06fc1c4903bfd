"""Where a fleet's state is on Docker Swarm: a service without replicas, whose version index is compare-and-set.

Its labels are the root, and each part is a config.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from shoal.control.document_store import Part, Root
from shoal.engines.swarm.docker import DockerError
from shoal.engines.swarm.names import FLEET, Role, fleet_labels, object_name, own_name

_SCHEMA = "shoal.schema"
_DOCUMENT = "shoal.document."


class Swarm(Protocol):
    """What it takes of `Docker` to keep the state: services and configs."""

    async def service(self, name: str) -> dict[str, Any]: ...

    async def create_service(self, spec: Mapping[str, Any]) -> str: ...

    async def write_service(self, service_id: str, version: int, spec: Mapping[str, Any]) -> None: ...

    async def config(self, name: str) -> dict[str, Any]: ...

    async def configs(self, labels: Mapping[str, str]) -> list[dict[str, Any]]: ...

    async def create_config(self, name: str, data: bytes, labels: Mapping[str, str]) -> str: ...

    async def remove_config(self, name: str) -> None: ...


class SwarmKeeper:
    """See `shoal.control.document_store.Keeper`."""

    def __init__(self, docker: Swarm, fleet: str) -> None:
        self._docker, self._fleet = docker, fleet
        self._labels = fleet_labels(fleet, Role.STATE)
        self.where = own_name(fleet, Role.STATE.value)

    async def read(self) -> Root | None:
        try:
            return _root(await self._docker.service(self.where))
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    async def make(self, schema: str) -> Root:
        spec = {
            "Name": self.where,
            "Labels": {**self._labels, _SCHEMA: schema},
            "Mode": {"Replicated": {"Replicas": 0}},
            "TaskTemplate": {"ContainerSpec": {"Image": "shoal-state", "Labels": {FLEET: self._fleet}}},
        }
        try:
            await self._docker.create_service(spec)
        except DockerError as error:
            if error.status != 409:
                raise
        return _root(await self._docker.service(self.where))

    async def write(self, root: Root, documents: Mapping[str, str]) -> None:
        service = root.found
        labels = {**service["Spec"]["Labels"], **{_DOCUMENT + name: told for name, told in documents.items()}}
        spec = {**service["Spec"], "Labels": labels}
        await self._docker.write_service(service["ID"], service["Version"]["Index"], spec)

    async def part(self, name: str) -> bytes | None:
        try:
            return base64.b64decode((await self._docker.config(name))["Spec"]["Data"])
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    async def put_part(self, document: str, digest: str, content: bytes) -> str:
        name = object_name(self._fleet, f"shoal-{document}", digest)
        await self._docker.create_config(name, content, self._labels)
        return name

    async def parts(self) -> Sequence[Part]:
        configs = await self._docker.configs(self._labels)
        return [Part(each["Spec"]["Name"], datetime.fromisoformat(each["CreatedAt"]).timestamp()) for each in configs]

    async def remove_part(self, name: str) -> None:
        await self._docker.remove_config(name)


def _root(service: dict[str, Any]) -> Root:
    labels: Mapping[str, str] = service["Spec"]["Labels"]
    documents = {key.removeprefix(_DOCUMENT): told for key, told in labels.items() if key.startswith(_DOCUMENT)}
    return Root(labels.get(_SCHEMA, "1"), documents, service)
