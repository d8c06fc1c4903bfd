"""What is kept of a replica, a run and an agent on disk: enough for the next controller to take over.

Each is one JSON file, replaced as a whole. A file that can't be read is no reason to stop: it is kept aside, and what
it spoke of is found by what runs; what does not run is started anew.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import psutil
from pydantic import TypeAdapter, ValidationError

from shoal.core.observed import JobRun, Phase, Replica
from shoal.core.template import Template
from shoal.engines.local.census import read_mark
from shoal.engines.local.instant import Instant
from shoal.engines.local.layout import read_if_there, set_aside, write_whole
from shoal.engines.local.process import Identity, identify
from shoal.engines.local.render import HOST, LEADER_NAME
from shoal.errors import EngineError

VERSION = 1


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
    """Reads it; `None` if it is missing, or can't be read and was set aside."""
    content = read_if_there(path)
    try:
        return None if content is None else _AGENT.validate_json(content)
    except ValidationError:
        set_aside(path, time.time())
        return None


def store_life(path: Path, state: ReplicaState | RunState) -> None:
    """Writes a replica's or run's manifest."""
    write_whole(path, _LIFE.dump_json(state))


def load_life(path: Path) -> ReplicaState | RunState | None:
    """Reads it; `None` if it is missing, or can't be read, was set aside, and nothing of it runs."""
    content = read_if_there(path)
    try:
        return None if content is None else _LIFE.validate_json(content)
    except ValidationError:
        state = recover_life(path.parent)
        set_aside(path, time.time())
        if state is not None:
            with contextlib.suppress(OSError):  # a full disk: the next look finds it as this one did
                store_life(path, state)
        return state


def recover_life(directory: Path) -> ReplicaState | RunState | None:
    """What runs knows itself: from the mark, the environment and the words of the leader of the life with this
    directory; `None` if none runs."""
    for pid in psutil.pids():
        mark = read_mark(pid)
        if not mark.endswith(f"@{directory}"):
            continue
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            process = psutil.Process(pid)
            words = process.cmdline()
            if LEADER_NAME not in words or os.getsid(pid) != pid:
                continue
            number = int(Path(words[words.index(LEADER_NAME) + 1]).name.removeprefix("exit-"))
            kind, _, revision = mark.partition("@")[0].partition(":")
            begun = Start(number, identify(pid), process.create_time())
            return _recovered(kind, revision, process.environ(), begun, directory)
    return None


def _recovered(
    kind: str, revision: str, environment: Mapping[str, str], begun: Start, directory: Path
) -> ReplicaState | RunState:
    identity, agent = unquote(directory.name), directory.parent.parent.name
    gpus = tuple(device for device in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if device)
    if kind == "run":
        return RunState(
            identity, agent, revision, begun.at, None, 0, Phase.RUNNING, start=begun, gpus=gpus, started_at=begun.at
        )
    return ReplicaState(
        identity, agent, revision, begun.at, Phase.RUNNING,
        ordinal=int(environment["SHOAL_ORDINAL"]) if "SHOAL_ORDINAL" in environment else None,
        start=begun, port=int(environment["PORT"]) if "PORT" in environment else None, gpus=gpus,
        started_at=begun.at,
    )  # fmt: skip


def check_version(path: Path) -> None:
    """Notes the version of these files. Raises EngineError where a newer Shoal noted a higher one: it is left alone."""
    content = (read_if_there(path) or b"").decode(errors="replace").strip()
    if content.isdecimal() and int(content) > VERSION:
        raise EngineError(
            f"{path.parent}: the local engine's state has version {content}, written by a newer Shoal; this one knows "
            f"{VERSION}. Nothing was touched: install that Shoal again, or `shoal down` by it first"
        )
    if content != str(VERSION):
        with contextlib.suppress(OSError):  # a full disk: the next one notes it
            write_whole(path, f"{VERSION}\n".encode())
