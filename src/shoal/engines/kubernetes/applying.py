"""Objects brought to what is rendered: server-side, several at once, and what is unchanged not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import KINDS, kind_of
from shoal.engines.kubernetes.names import labels_of
from shoal.engines.kubernetes.render_own import noted
from shoal.engines.kubernetes.render_pod import Object
from shoal.errors import EngineError

_AT_ONCE = 16
_ORDER = list(KINDS)


async def ensure(kubernetes: Kubernetes, fleet: str, items: Sequence[Object]) -> list[Object]:
    """Applies what differs from what was applied before, what others refer to first; gives what it applied. Raises
    EngineError where one is of somebody else, KubernetesError where it is refused."""
    changed: list[Object] = []
    slots = asyncio.Semaphore(_AT_ONCE)

    async def put(item: Object) -> None:
        async with slots:
            if await _put(kubernetes, fleet, item):
                changed.append(item)

    for name in sorted({item["kind"] for item in items}, key=_ORDER.index):
        async with asyncio.TaskGroup() as tasks:
            for item in items:
                if item["kind"] == name:
                    tasks.create_task(put(noted(item)))
    return changed


async def _put(kubernetes: Kubernetes, fleet: str, item: Object) -> bool:
    kind, name = kind_of(item), item["metadata"]["name"]
    there = await kubernetes.find(kind, name)
    if there is not None:
        owner = labels_of(there).get(names.FLEET)
        if owner != fleet and kind.namespaced:
            raise EngineError(
                f"the {kind.name} {name} in {kubernetes.namespace} is {f'of fleet {owner}' if owner else 'not ours'}: "
                "give this fleet a namespace of its own (`namespace` in the file), or remove that"
            )
        annotations: Mapping[str, str] = there["metadata"].get("annotations") or {}
        same = annotations.get(names.CONTENT) == item["metadata"]["annotations"][names.CONTENT]
        if same and there.get("spec", {}).get("replicas") == item.get("spec", {}).get("replicas"):  # often set by hand
            return False
    await kubernetes.apply(kind, item, force=True)  # it carries our label
    return True
