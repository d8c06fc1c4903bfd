"""A fleet while no controller is there to say more, and its agents as a cluster shows them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from shoal.api.present import run_view
from shoal.api.views import AgentView, ReplicaView, StatusView
from shoal.cli.unattended import unattended
from shoal.core.observed import AgentObserved, Phase, Replica

if TYPE_CHECKING:
    from shoal.control.store import StoredFleet
    from shoal.spec.model import Agent


_AWAY = (
    "no controller answers, so nothing is scaled, rolled out or run on schedule; {called} itself replaces what ends. "
    "`shoal up` sees to it that a controller is there"
)
_TAKEN_DOWN = "the fleet was taken down, and no controller answers; `shoal down` again stops what is left of it"
_NO_GATEWAY = "no gateway runs, so nothing routes requests to agents"


def fleet_view(
    engine: str, called: str, stored: StoredFleet, fleet: str, agents: Mapping[str, AgentObserved], *, routed: bool
) -> StatusView:
    """A fleet whose controller does not answer, by what its cluster, `called` so in words, shows of its agents."""
    specs: Mapping[str, Agent] = stored.fleet.agents if stored.fleet is not None else {}
    views = [
        agent_view(agents.get(name, AgentObserved(name)), specs.get(name), routed=routed)
        for name in sorted({*specs, *agents})
    ]
    away = _AWAY.format(called=called)
    return unattended_view(fleet, engine, stored, views, (away,) if routed else (away, _NO_GATEWAY))


def unattended_view(
    fleet: str, engine: str, stored: StoredFleet, agents: Iterable[AgentView], problems: tuple[str, ...]
) -> StatusView:
    """What a status has where no controller says it, on every engine; `problems` where the fleet is to run."""
    return StatusView(
        fleet=fleet,
        engine=engine,
        at=time.time(),
        generation=stored.generation,
        observed_generation=stored.generation,
        settled=False,
        gateway_url=None,
        gateways=(),
        controller_pid=0,
        agents=tuple(agents),
        problems=problems if stored.fleet is not None else (_TAKEN_DOWN,),
    )


def agent_view(agent: AgentObserved, spec: Agent | None, *, routed: bool) -> AgentView:
    """One agent of a fleet whose controller does not answer."""
    replicas = agent.replicas
    running = sum(each.phase is Phase.RUNNING for each in replicas)
    wanted = sum(agent.counts.values())
    kind = spec.kind.value if spec is not None else "removed"
    return AgentView(
        name=agent.agent,
        kind=kind,
        revision=replicas[-1].revision if replicas else "",
        state="degraded",  # at best: what it is wished to be, nobody sees to
        reason="; ".join(_reasons(kind, wanted, running, routed=routed)),
        desired=wanted,
        ready=running,
        starting=sum(each.phase in (Phase.PENDING, Phase.BACKOFF) for each in replicas),
        stopping=sum(each.phase is Phase.STOPPING for each in replicas),
        min=spec.scale.min if spec is not None else 0,
        max=spec.scale.max if spec is not None else 0,
        replicas=tuple(map(_replica_view, replicas)),
        runs=tuple(map(run_view, agent.runs)),
    )


def _reasons(kind: str, wanted: int, running: int, *, routed: bool) -> Iterator[str]:
    if running < wanted:
        yield f"{wanted - running} of {wanted} replicas do not run"
    elif running:
        yield "they run; whether they are ready, nobody asks"
    yield from unattended(kind, wanted, "scales", routed=routed)


def _replica_view(replica: Replica) -> ReplicaView:
    return ReplicaView(
        id=replica.id,
        revision=replica.revision,
        phase=replica.phase.value,
        ready=replica.phase is Phase.RUNNING,
        address=f"{replica.host}:{replica.port}" if replica.host and replica.port else None,
        started_at=replica.started_at,
        restarts=replica.restarts,
        reason=replica.reason,
        last_log=replica.last_log,
    )
