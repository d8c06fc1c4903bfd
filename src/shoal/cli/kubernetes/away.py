"""What runs, while no controller is there to say so: read from what the cluster shows of the fleet's objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from shoal.api.views import StatusView
from shoal.cli.away import fleet_view
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api.kinds import CONFIG_MAP, DEPLOYMENT, JOB, POD, STATEFUL_SET
from shoal.engines.kubernetes.names import Role, labels_of, role_of
from shoal.engines.kubernetes.read import Parts, read_agent

if TYPE_CHECKING:
    from shoal.control.store import StoredFleet
    from shoal.engines.kubernetes.api import Kind, Kubernetes

Object = Mapping[str, Any]


async def look_at_kubernetes(
    kubernetes: Kubernetes, fleet: str, stored: StoredFleet, mask: Callable[[str], str]
) -> StatusView | None:
    """The fleet by its objects; `None` where nothing is to run and nothing does. `mask` takes secrets out of what
    replicas wrote."""
    ours = {names.FLEET: fleet}
    found: dict[Kind, list[dict[str, Any]]] = {}
    for kind in (DEPLOYMENT, STATEFUL_SET, JOB, POD):
        found[kind], _ = await kubernetes.list(kind, ours)
    found[CONFIG_MAP], _ = await kubernetes.list(CONFIG_MAP, {**ours, names.ROLE: Role.TEMPLATE.value})
    named = {name for items in found.values() for each in items if (name := labels_of(each).get(names.AGENT))}

    def of(agent: str, kind: Kind) -> list[Object]:
        return [each for each in found[kind] if labels_of(each).get(names.AGENT) == agent]

    agents = {
        name: read_agent(
            name,
            Parts(
                of(name, DEPLOYMENT),
                of(name, STATEFUL_SET),
                of(name, CONFIG_MAP),
                of(name, JOB),
                of(name, POD),
                mask=mask,
            ),
        )
        for name in named
    }
    if stored.fleet is None and not agents:
        return None
    routed = any(role_of(pod) == Role.GATEWAY and pod["status"].get("phase") == "Running" for pod in found[POD])
    return fleet_view("kubernetes", "Kubernetes", stored, fleet, agents, routed=routed)
