"""What runs, while no controller is there to say so: read from what Swarm shows of the fleet's services and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.api.views import StatusView
from shoal.cli.away import fleet_view
from shoal.engines.swarm import names
from shoal.engines.swarm.read import Seen, read_agents

if TYPE_CHECKING:
    from shoal.control.store import StoredFleet
    from shoal.engines.swarm.docker import Docker


async def look_at_swarm(docker: Docker, fleet: str, stored: StoredFleet) -> StatusView | None:
    """The fleet by its services; `None` where nothing is to run and nothing does."""
    services, tasks = await docker.services({names.FLEET: fleet}), await docker.tasks({names.FLEET: fleet})
    agents = read_agents(Seen(services=services, tasks=tasks, network=""))
    if stored.fleet is None and not agents:
        return None
    gateways = [each for each in tasks if names.role_of(each["Spec"]["ContainerSpec"].get("Labels") or {}) == "gateway"]
    routed = any(each["Status"]["State"] == "running" for each in gateways)
    return fleet_view("swarm", "Swarm", stored, fleet, agents, routed=routed)
