"""The shapes that the API speaks, as values: the server fills them, the client reads them back, JSON in between.

Over HTTP/1.1 on a Unix socket (mode 0600) locally; elsewhere over HTTPS, where all but `/v1/join` takes a certificate
of the fleet with the role client (`/v1/renew`: of any role). Answers are these classes as JSON objects; errors are
`{"error": <class of ShoalError>, "message": ...}` with 403 (IdentityError), 404 (NotFound), 409 (Conflict), 429 (too
many tries to join), 400 (others) or 500. Streams (`follow`, `watch`) are one JSON object a line. A task is shown as
`shoal.core.queued` has it. Certificates and requests for one are PEM.

    GET  /v1/status                                            StatusView
    GET  /v1/watch                                             a stream of StatusView, one at once, then on change
    GET  /v1/explain/{agent}?last=N                            {"decisions": [DecisionView]}, the newest first
    GET  /v1/events?since=EPOCH&follow=0|1                     a stream of EventView, the oldest first
    GET  /v1/logs?agent=A&agent=B&follow=0|1&since=EPOCH&tail=N   a stream of LogView
    GET  /v1/exec?replica=R                                     a WebSocket, see `shoal.engines.command_line`
    POST /v1/scale        {"agent", "count": N | null, "for_s": S | null}     null count releases the pin -> AgentView
    POST /v1/run          {"agent"}                             {"run_id"}
    GET  /v1/queues                                             {"queues": [QueueView]}
    GET  /v1/queues/{queue}/tasks?dead=0|1&limit=N              {"tasks": [QueuedTask]}
    POST /v1/queues/{queue}/purge     {"dead": bool}            {"purged": N}
    POST /v1/queues/{queue}/redrive   {"ids": [..] | null}      {"redriven": N}     null: all dead letters
    POST /v1/apply        {}                                    {"generation"}      look at the stored fleet now
    GET  /v1/join                                               {"authority"}       the fleet's, by certificate
    POST /v1/join         {"token", "role", "name", "request"}  {"certificate"}     role gateway or node
    POST /v1/renew        {"request"}                           {"certificate"}     for who shows one
    POST /v1/certificates {"name", "request", "life_s": S}      {"certificate"}     role client, for a teammate
    POST /v1/down         {"volumes": bool}                     {}                  answered once all is stopped
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LOG_TAIL_LINES = 1000  # a replica's, where neither an end nor a begin was asked for


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica; `phase` and times as in `shoal.core.observed.Replica`, CPU in cores, GPUs as in
    `shoal.core.signals.Usage`."""

    id: str
    revision: str
    phase: str
    ready: bool
    address: str | None
    started_at: float | None
    restarts: int
    reason: str
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    last_log: tuple[str, ...] = ()
    gpus_busy: float | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """One run of a job."""

    run_id: str
    phase: str
    attempt: int
    started_at: float | None
    finished_at: float | None
    exit_code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class DecisionView:
    """One decision of the autoscaler, as `shoal.core.decision.Decision`."""

    at: float
    current: int
    count: int
    reason: str
    capped_by: str
    due_at: float | None
    proposals: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutView:
    """How far `revision` is in taking over from `stable`: `phase` is `progressing`, `complete` or `failed`, with its
    `reason` and the last lines of a replica that did not get ready; `serving` is the one that serves in the end."""

    phase: str
    revision: str
    stable: str | None
    serving: str
    generation: int
    started_at: float
    finished_at: float | None
    new: int
    new_ready: int
    old: int
    reason: str = ""
    last_log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnerView:
    """Who sets an agent's count in place of Shoal, and since when that is seen (epoch seconds). `delegated`: Shoal
    handed it over; `lasting`: who has it would set it again. `trouble`: why it can't tell how many there should be."""

    name: str
    since: float | None
    delegated: bool
    lasting: bool
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class AgentView:
    """One agent. `state` is `ok`, `progressing`, `asleep` (at zero, wakes by itself), `degraded` or `failed`, with its
    `reason`; `settled`: what is wished of it is carried out. `desired`, `ready` and `starting` count replicas apart.
    `waits_on` are the agents that it waits for before its first start or its end."""

    name: str
    kind: str
    revision: str
    state: str
    reason: str
    desired: int
    ready: int
    starting: int
    stopping: int
    min: int
    max: int
    pin: int | None = None
    pin_until: float | None = None
    url: str | None = None
    concurrency: float | None = None
    rps: float | None = None
    p95_s: float | None = None
    queue_depth: float | None = None
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    next_run_at: float | None = None
    decision: DecisionView | None = None
    replicas: tuple[ReplicaView, ...] = ()
    runs: tuple[RunView, ...] = ()
    settled: bool = True
    rollout: RolloutView | None = None
    waits_on: tuple[str, ...] = ()
    gpus_busy: float | None = None
    gpu_memory_bytes: int | None = None
    owner: OwnerView | None = None


@dataclass(frozen=True, slots=True)
class StatusView:
    """The fleet. `generation` is what is wished, `observed_generation` what has been taken up; `settled` says that it
    is carried out too, `routed` that the gateways route by it, which is a part of that. `version` is the controller's,
    empty where none answers. `engine_away`: it can't be reached now, one of the `problems` says why."""

    fleet: str
    engine: str
    at: float
    generation: int
    observed_generation: int
    settled: bool
    gateway_url: str | None
    gateways: tuple[str, ...]
    controller_pid: int
    agents: tuple[AgentView, ...] = ()
    problems: tuple[str, ...] = ()
    version: str = ""
    routed: bool = True
    engine_away: bool = False


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that happened: `kind` is a short word (`scaled`, `ready`, `crashed`, `run-failed`, ...)."""

    at: float
    agent: str | None
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class LogView:
    """One line of a replica's output."""

    replica: str
    agent: str
    text: str
    stream: str = "stdout"
    at: float | None = None


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue: tasks that wait, that are being worked on, and dead letters."""

    name: str
    broker: str
    waiting: int
    in_progress: int
    dead: int
    consumers: tuple[str, ...] = field(default_factory=tuple)
