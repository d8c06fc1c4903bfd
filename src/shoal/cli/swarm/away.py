"""What runs, while no controller is there to say so: read from what Swarm shows of the fleet's services and tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shoal.api.views import StatusView
from shoal.cli.away import agent_view
from shoal.core.observed import AgentObserved
from shoal.engines.swarm import names
from shoal.engines.swarm.read import Seen, read_agents

if TYPE_CHECKING:
    from shoal.control.store import StoredFleet
    from shoal.engines.swarm.docker import Docker
    from shoal.spec.model import Agent

_AWAY = (
    "no controller answers, so nothing is scaled, rolled out or run on schedule; Swarm itself replaces what ends. "
    "`shoal up` sees to it that a controller is there"
)
_NO_GATEWAY = "no gateway runs, so nothing routes requests to agents"


async def look_at_swarm(docker: Docker, fleet: str, stored: StoredFleet) -> StatusView | None:
    """The fleet by its services; `None` where nothing is to run and nothing does."""
    services, tasks = await docker.services({names.FLEET: fleet}), await docker.tasks({names.FLEET: fleet})
    agents = read_agents(Seen(services=services, tasks=tasks, network=""))
    specs: Mapping[str, Agent] = stored.fleet.agents if stored.fleet is not None else {}
    if stored.fleet is None and not agents:
        return None
    gateways = [each for each in tasks if names.role_of(each["Spec"]["ContainerSpec"].get("Labels") or {}) == "gateway"]
    routed = any(each["Status"]["State"] == "running" for each in gateways)
    return StatusView(
        fleet=fleet,
        engine="swarm",
        at=time.time(),
        generation=stored.generation,
        observed_generation=stored.generation,
        settled=False,
        gateway_url=None,
        gateways=(),
        controller_pid=0,
        agents=tuple(
            agent_view(agents.get(name, AgentObserved(name)), specs.get(name), routed=routed)
            for name in sorted({*specs, *agents})
        ),
        problems=(_AWAY,) if routed else (_AWAY, _NO_GATEWAY),
    )
