"""What an engine says that there is. Values only: an engine builds them, control and core read them.

An engine gives the *same object* again for an agent of which nothing changed, so that a pass over 1,000 quiet agents
costs a comparison of identities each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """Where a replica is in its life. `ready` is a fact of its own."""

    PENDING = "pending"  # wanted, not placed or not started yet; `reason` says why
    RUNNING = "running"  # its process lives; ready or not
    STOPPING = "stopping"  # told to end, may still finish what it has
    BACKOFF = "backoff"  # ended by itself and waits to be started again
    FAILED = "failed"  # ended and will not be started again
    SUCCEEDED = "succeeded"


def life_id(agent: str, number: int, ordinal: int | None = None) -> str:
    """The id of one life, where an engine gives it itself: `web-7`, or with an identity to outlive it `stock-0.7`."""
    return f"{agent}-{number}" if ordinal is None else f"{identity_name(agent, ordinal)}.{number}"


def identity_name(agent: str, ordinal: int) -> str:
    """What a stateful agent's replica is called in all its lives: `stock-0`."""
    return f"{agent}-{ordinal}"


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica.

    `id` is unique in the fleet and stable for one life of the replica (a restart in place keeps it): `life_id`; times
    are epoch seconds. `host` and `port` are where the gateway reaches it; `source` is the address it calls from where
    the engine tells callers apart by address.
    """

    id: str
    agent: str
    revision: str
    phase: Phase
    ready: bool = False
    host: str | None = None
    port: int | None = None
    source: str | None = None
    node: str | None = None
    ordinal: int | None = None
    created_at: float = 0.0
    started_at: float | None = None
    ready_at: float | None = None
    restarts: int = 0
    exit_code: int | None = None
    reason: str = ""
    last_log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job. `attempt` counts from 1; `source` is the address that its calls come from, where the engine
    gives it one, while it is not over."""

    run_id: str
    agent: str
    revision: str
    phase: Phase
    attempt: int = 1
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    source: str | None = None


@dataclass(frozen=True, slots=True)
class CountOwner:
    """Who set how many replicas there are, or sets it, in place of Shoal: `name` in the engine's words. `lasting`: it
    would set it again, as an autoscaler does. `trouble`: why it can't say how many now."""

    name: str
    lasting: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """The engine's own autoscaler, to which Shoal handed the count of a revision over."""

    revision: str
    owner: CountOwner


@dataclass(frozen=True, slots=True)
class AgentObserved:
    """One agent as the engine has it: `counts` is how many replicas each revision is set to have there, `owners` by
    revision who else than Shoal set that, or sets it. `queued`: revisions of which there is no replica at all only as
    the engine, which was told, has not come to them yet. `lacking`: what its replicas need beside them was removed, and
    ensuring a revision makes it again."""

    agent: str
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    replicas: tuple[Replica, ...] = ()
    runs: tuple[JobRun, ...] = ()
    owners: Mapping[str, CountOwner] = field(default_factory=dict[str, CountOwner])
    autoscaler: Autoscaler | None = None
    queued: frozenset[str] = frozenset()
    lacking: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything of one fleet. `complete` is false while the engine could not look everywhere: nothing that is merely
    absent from it may then be taken as gone. `troubles`: what keeps gateways and the like from running, in words;
    `reachable`: the outside reaches a gateway, where the engine has a say in that."""

    at: float
    agents: Mapping[str, AgentObserved]
    complete: bool = True
    troubles: tuple[str, ...] = ()
    reachable: bool = True
