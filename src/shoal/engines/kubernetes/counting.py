"""How counts are written to a cluster in which others may set them too: only to the object that was looked at, and only
where its count is Shoal's, or taken from who has it on purpose.

Most changes of such an object are of its status, and no reason to give up: it is read again. Server-side apply's own
conflicts don't tell enough: who made an object or was its autoscaler is named there though the count is Shoal's, and
who set it to zero is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shoal.core.action import Scale
from shoal.engines.kubernetes.api import Kind, Kubernetes
from shoal.engines.kubernetes.api.refusals import KubernetesConflict
from shoal.engines.kubernetes.inventory import Inventory
from shoal.engines.kubernetes.ownership import aims_at, read_owner
from shoal.engines.kubernetes.render_pod import Object
from shoal.errors import Outdated

_TRIES = 5
_WHICH = ("uid", "resourceVersion")  # without the first, what is gone would be made anew

There = Mapping[str, Any]


async def write_count(
    kubernetes: Kubernetes,
    inventory: Inventory,
    kind: Kind,
    there: There,
    action: Scale,
    render: Callable[[There, bool], Object | None],
) -> None:
    """Applies what `render` makes of the object as it is, and of whether its count is taken from somebody; `None`: it
    is right already. Raises Outdated where somebody else has set the count meanwhile, and EngineError."""
    name = there["metadata"]["name"]
    for _ in range(_TRIES):
        aiming = [each for each in inventory.parts(action.agent).autoscalers if aims_at(each, there, kind.name)]
        owner, taken_from = read_owner(there, aiming), action.taken_from
        if owner is not None and (taken_from is None or taken_from.name != owner.name):
            raise Outdated(f"agents.{action.agent}: {owner.name} has set the count of {kind.name} {name} meanwhile")
        wanted = render(there, owner is not None)
        if wanted is None:
            return
        metadata = {**wanted["metadata"], **{key: there["metadata"][key] for key in _WHICH}}
        try:
            inventory.put(kind, await kubernetes.apply(kind, {**wanted, "metadata": metadata}, force=True))
        except KubernetesConflict:
            found = await kubernetes.find(kind, name)
            if found is None:
                inventory.drop(kind, name)
                raise Outdated(f"agents.{action.agent}: {kind.name} {name} was removed meanwhile") from None
            inventory.put(kind, found)
            there = found
        else:
            return
    raise Outdated(f"agents.{action.agent}: {kind.name} {name} was changed {_TRIES} times meanwhile")
