"""What runs, while no controller is there to say so: read from the state that the engine keeps on disk.

Counts are what the processes show. Whether a replica is ready is what it last was known to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.api.views import AgentView, ReplicaView, RunView, StatusView
from shoal.cli.away import unattended_view
from shoal.cli.unattended import unattended
from shoal.core.broker import broker_users
from shoal.core.observed import Phase
from shoal.engines.local.process import is_alive
from shoal.engines.local.service import Service
from shoal.engines.local.state import ReplicaState, RunState, load_life

if TYPE_CHECKING:
    from shoal.control.store import StoredFleet
    from shoal.spec.model import Agent

_AWAY = "no controller answers, so nothing is scaled, replaced or run on schedule; `shoal up` starts it again"
_NO_GATEWAY = "no gateway runs, so nothing routes requests to agents; `shoal up` starts it again"
_NO_BROKER = "the queues' broker does not run, so nobody gets or puts a task; `shoal up` starts it again"
_ALIVE = frozenset((Phase.RUNNING, Phase.STOPPING))


def look_without_controller(directory: Path, name: str, stored: StoredFleet) -> StatusView | None:
    """The fleet by its state on disk; `None` where nothing is to run and nothing does."""
    lives = _load_lives(directory)
    replicas = [life for life in lives if isinstance(life, ReplicaState)]
    runs = [life for life in lives if isinstance(life, RunState)]
    fleet = stored.fleet
    if fleet is None and not replicas and not runs:
        return None
    specs: Mapping[str, Agent] = fleet.agents if fleet is not None else {}
    routed = _gateway_runs(directory)
    queued = fleet is None or not broker_users(fleet) or _broker_runs(directory)
    names = sorted({*specs, *(life.agent for life in (*replicas, *runs))})
    views = [
        _agent_view(
            agent,
            specs.get(agent),
            [life for life in replicas if life.agent == agent],
            [life for life in runs if life.agent == agent],
            routed=routed,
        )
        for agent in names
    ]
    engine = fleet.engine if fleet is not None else "local"
    lacks = ((_NO_GATEWAY,) if not routed else ()) + ((_NO_BROKER,) if not queued else ())
    return unattended_view(name, engine, stored, views, (_AWAY, *lacks))


def agents_run(directory: Path) -> bool:
    """Whether any process of an agent is there."""
    return any(_lives(life) for life in _load_lives(directory))


def platform_runs(directory: Path) -> bool:
    """Whether gateway or broker are there."""
    return _gateway_runs(directory) or _broker_runs(directory)


def _load_lives(directory: Path) -> list[ReplicaState | RunState]:
    loaded = map(load_life, sorted((directory / "agents").glob("*/lives/*/state.json")))
    return [life for life in loaded if life is not None]


def _gateway_runs(directory: Path) -> bool:
    return Service("gateway", directory / "platform" / "gateway", keeps="envoy").anything_alive


def _broker_runs(directory: Path) -> bool:
    return Service("broker", directory / "platform" / "broker").alive


def _agent_view(
    name: str, spec: Agent | None, replicas: list[ReplicaState], runs: list[RunState], *, routed: bool
) -> AgentView:
    alive = [life for life in replicas if life.phase in _ALIVE and _lives(life)]
    ready = sum(life.ready and life.phase is Phase.RUNNING for life in alive)
    wanted = sum(life.phase is not Phase.STOPPING for life in replicas)
    lost = wanted - sum(life.phase is Phase.RUNNING for life in alive)
    kind = spec.kind.value if spec is not None else "removed"
    return AgentView(
        name=name,
        kind=kind,
        revision=replicas[-1].revision if replicas else "",
        state="degraded",  # at best: what it is wished to be, nobody sees to
        reason="; ".join(_reasons(kind, wanted, lost, routed=routed)),
        desired=wanted,
        ready=ready,
        starting=len(alive) - ready - sum(life.phase is Phase.STOPPING for life in alive),
        stopping=sum(life.phase is Phase.STOPPING for life in alive),
        min=spec.scale.min if spec is not None else 0,
        max=spec.scale.max if spec is not None else 0,
        replicas=tuple(_replica_view(life) for life in replicas),
        runs=tuple(
            RunView(run.id, run.phase.value, run.attempt, run.started_at, run.finished_at, run.exit_code, run.reason)
            for run in runs
        ),
    )


def _reasons(kind: str, wanted: int, lost: int, *, routed: bool) -> Iterator[str]:
    if lost:
        yield f"{lost} of {wanted} replicas do not run"
    yield from unattended(kind, wanted, "scales or replaces", routed=routed)


def _replica_view(life: ReplicaState) -> ReplicaView:
    gone = life.phase in _ALIVE and not _lives(life)
    return ReplicaView(
        id=life.id,
        revision=life.revision,
        phase=Phase.FAILED.value if gone else life.phase.value,
        ready=life.ready and not gone,
        address=f"127.0.0.1:{life.port}" if life.port is not None else None,
        started_at=life.started_at,
        restarts=life.restarts,
        reason="ended while no controller was there" if gone else life.reason,
        last_log=life.last_log,
    )


def _lives(life: ReplicaState | RunState) -> bool:
    if life.start is None or life.start.process is None:
        return False
    try:
        return is_alive(life.start.process)
    except OSError:  # nobody can tell, and a process that was there is more likely there still
        return True
