"""What is kept of a replica, a run and an agent on disk: enough for the next controller to take over.

Each is one JSON file, replaced as a whole. A file that can't be read, or was written by a process of another boot, is
no reason to stop: what it spoke of is started anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from shoal.core.observed import JobRun, Phase, Replica
from shoal.core.template import Template
from shoal.engines.local.instant import Instant
from shoal.engines.local.layout import read_if_there, write_whole
from shoal.engines.local.process import Identity
from shoal.engines.local.render import HOST


@dataclass(slots=True)
class Start:
    """The one start that counts: `number` names its exit file, `process` is `None` until it is spawned. `at` is for
    people, `began` for what is counted from it."""

    number: int
    process: Identity | None = None
    at: float = 0.0
    began: Instant | None = None
    stdout_from: int = 0  # where in the logs this start's output begins
    stderr_from: int = 0


@dataclass(slots=True)
class ReplicaState:
    """One replica's manifest. `stop_due`: it was told to end and is killed then."""

    id: str
    agent: str
    revision: str
    created_at: float
    phase: Phase = Phase.PENDING
    ready: bool = False
    ordinal: int | None = None
    start: Start | None = None
    port: int | None = None
    gpus: tuple[str, ...] = ()
    started_at: float | None = None
    ready_at: float | None = None
    restarts: int = 0
    failures: int = 0
    exit_code: int | None = None
    reason: str = ""
    last_log: tuple[str, ...] = ()
    start_due: Instant | None = None
    stop_due: Instant | None = None
    kind: Literal["replica"] = "replica"

    def value(self, node: str) -> Replica:
        """As it is observed."""
        return Replica(
            id=self.id, agent=self.agent, revision=self.revision, phase=self.phase, ready=self.ready, host=HOST,
            port=self.port, node=node, ordinal=self.ordinal, created_at=self.created_at, started_at=self.started_at,
            ready_at=self.ready_at, restarts=self.restarts, exit_code=self.exit_code, reason=self.reason,
            last_log=self.last_log,
        )  # fmt: skip


@dataclass(slots=True)
class RunState:
    """One run's manifest."""

    id: str
    agent: str
    revision: str
    created_at: float
    timeout_s: float | None
    retries: int
    phase: Phase = Phase.PENDING
    attempt: int = 1
    start: Start | None = None
    gpus: tuple[str, ...] = ()
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    start_due: Instant | None = None
    timed_out: bool = False
    kind: Literal["run"] = "run"

    def value(self) -> JobRun:
        """As it is observed."""
        return JobRun(
            run_id=self.id, agent=self.agent, revision=self.revision, phase=self.phase, attempt=self.attempt,
            started_at=self.started_at, finished_at=self.finished_at, exit_code=self.exit_code, reason=self.reason,
        )  # fmt: skip


@dataclass(slots=True)
class RevisionState:
    """A revision that the engine knows: what to start, and how many. A removed one stays until its last life ended."""

    template: Template
    environment: dict[str, str]
    count: int = 0
    removed: bool = False


@dataclass(slots=True)
class AgentState:
    """One agent's manifest. `made` counts replicas, so that no id is used twice."""

    agent: str
    revisions: dict[str, RevisionState] = field(default_factory=dict[str, RevisionState])
    made: int = 0
    removed: bool = False


_AGENT = TypeAdapter(AgentState)
_LIFE: TypeAdapter[ReplicaState | RunState] = TypeAdapter(ReplicaState | RunState)


def store_agent(path: Path, state: AgentState) -> None:
    """Writes the agent's manifest."""
    write_whole(path, _AGENT.dump_json(state, by_alias=True))


def load_agent(path: Path) -> AgentState | None:
    """Reads it; `None` if it is missing or can't be read."""
    content = read_if_there(path)
    try:
        return None if content is None else _AGENT.validate_json(content)
    except ValidationError:
        return None


def store_life(path: Path, state: ReplicaState | RunState) -> None:
    """Writes a replica's or run's manifest."""
    write_whole(path, _LIFE.dump_json(state))


def load_life(path: Path) -> ReplicaState | RunState | None:
    """Reads it; `None` if it is missing or can't be read."""
    content = read_if_there(path)
    try:
        return None if content is None else _LIFE.validate_json(content)
    except ValidationError:
        return None
