"""Where a fleet's state is on Kubernetes: the ConfigMap `shoal-state`, whose resourceVersion is compare-and-set.

Its data is the root, and each part is a ConfigMap of its own. They are where the fleet is, so who may see the one may
see the other.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from shoal.control.document_store import Part, Root
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import CONFIG_MAP
from shoal.engines.kubernetes.names import FLEET, ROLE, STATE, Role, fleet_labels, labels_of, object_name
from shoal.errors import StoreError

_SCHEMA = "schema"
_CONTENT = "content"


class KubernetesKeeper:
    """See `shoal.control.document_store.Keeper`. It is of the namespace that `kubernetes` is of."""

    def __init__(self, kubernetes: Kubernetes, fleet: str) -> None:
        self._kubernetes, self._fleet = kubernetes, fleet
        self.where = f"ConfigMap {STATE} in namespace {kubernetes.namespace}"

    async def read(self) -> Root | None:
        found = await self._kubernetes.find(CONFIG_MAP, STATE)
        return None if found is None else self._root(found)

    async def make(self, schema: str) -> Root:
        await self._create(STATE, data={_SCHEMA: schema})
        return self._root(await self._kubernetes.get(CONFIG_MAP, STATE))

    async def write(self, root: Root, documents: Mapping[str, str]) -> None:
        await self._kubernetes.replace(CONFIG_MAP, {**root.found, "data": {_SCHEMA: root.schema, **documents}})

    async def part(self, name: str) -> bytes | None:
        found = await self._kubernetes.find(CONFIG_MAP, name)
        return None if found is None else base64.b64decode(found["binaryData"][_CONTENT])

    async def put_part(self, document: str, digest: str, content: bytes) -> str:
        name = object_name(STATE, document, digest)
        await self._create(name, binaryData={_CONTENT: base64.b64encode(content).decode()}, immutable=True)
        return name

    async def parts(self) -> Sequence[Part]:
        found = await self._kubernetes.list_metadata(CONFIG_MAP, {FLEET: self._fleet, ROLE: Role.STATE.value})
        told = [each["metadata"] for each in found]
        return [
            Part(each["name"], datetime.fromisoformat(each["creationTimestamp"]).timestamp())
            for each in told
            if each["name"] != STATE
        ]

    async def remove_part(self, name: str) -> None:
        await self._kubernetes.delete(CONFIG_MAP, name)

    async def _create(self, name: str, **more: Any) -> None:
        """There may be one already."""
        about = {"name": name, "labels": fleet_labels(self._fleet, Role.STATE)}
        await self._kubernetes.make(
            CONFIG_MAP, {"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.name, "metadata": about, **more}
        )

    def _root(self, found: dict[str, Any]) -> Root:
        owner = labels_of(found).get(FLEET)
        if owner != self._fleet:
            whose = f"the state of fleet {owner}" if owner else "one that no fleet made"
            raise StoreError(
                f"{self.where}: found {whose}, expected that of {self._fleet}: a namespace is of one fleet; name "
                "another one by `namespace` in the file"
            )
        documents = dict(found.get("data") or {})
        return Root(documents.pop(_SCHEMA, "1"), documents, found)
