"""The spec as values: what people write and, once defaults and shorthands are resolved, what everything else reads.

One set of models serves both: a validated `Fleet` is frozen and complete, `to_document` gives its canonical JSON form,
which is stored, hashed and diffed. Keys are Compose's where Compose has the concept, else Kubernetes', in snake_case;
attributes carry their unit (`timeout_s`) where the key does not (`timeout`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from shoal.units import parse_cpu_cores, parse_duration_s, parse_memory_bytes

SPEC_VERSION = 1

DurationS = Annotated[float, BeforeValidator(parse_duration_s)]
MemoryBytes = Annotated[int, BeforeValidator(parse_memory_bytes)]
CpuCores = Annotated[float, BeforeValidator(parse_cpu_cores)]


def _split_argv(value: object) -> object:
    """A string is split as a shell would split it, and never run by a shell."""
    return tuple(shlex.split(value)) if isinstance(value, str) else value


Argv = Annotated[tuple[str, ...], BeforeValidator(_split_argv)]
StringMap = Annotated[
    Mapping[str, str],
    PlainSerializer(lambda value: dict(sorted(value.items())), return_type=dict[str, str]),
]


class Model(BaseModel):
    """Frozen, and strict about keys: what is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=False)


class Kind(StrEnum):
    """What an agent is, inferred from what it has: a port, a queue or a schedule."""

    SERVICE = "service"
    WORKER = "worker"
    JOB = "job"


class Health(Model):
    """How the gateway and the engine see that a replica can take traffic. `health: /healthz` is short for `path`."""

    path: str | None = None  # None: a TCP connection is enough
    interval_s: DurationS = Field(default=2.0, alias="interval")
    timeout_s: DurationS = Field(default=2.0, alias="timeout")
    retries: int = Field(default=3, ge=1)  # failures in a row until unhealthy
    start_period_s: DurationS = Field(default=60.0, alias="start_period")  # how long a start may take


class Resources(Model):
    """Requests; memory is also the limit."""

    cpu: CpuCores | None = None
    memory_bytes: MemoryBytes | None = Field(default=None, alias="memory")
    gpu: int = Field(default=0, ge=0)


class ScalingPolicy(Model):
    """As in HPA v2: at most `value` replicas or percent within `period`."""

    type: Literal["pods", "percent"]
    value: int = Field(gt=0)
    period_s: DurationS = Field(alias="period")


class ScalingRules(Model):
    """One direction of HPA v2's behaviour. `None` means the default of that direction."""

    stabilization_window_s: DurationS | None = Field(default=None, alias="stabilization_window")
    select_policy: Literal["max", "min", "disabled"] = "max"
    policies: tuple[ScalingPolicy, ...] | None = None
    tolerance: float | None = Field(default=None, ge=0)


class Behavior(Model):
    """HPA v2's behaviour, with its defaults: up at once (4 replicas or 100 % in 15 s), down after 300 s."""

    scale_up: ScalingRules = ScalingRules()
    scale_down: ScalingRules = ScalingRules()


class Target(Model):
    """What a replica should bear. Several targets: the largest count wins."""

    cpu: float | None = Field(default=None, gt=0)  # percent of the request, as in HPA; `70%` or 70
    memory: float | None = Field(default=None, gt=0)  # percent of the request
    concurrency: float | None = Field(default=None, gt=0)  # requests in flight a replica
    rps: float | None = Field(default=None, gt=0)  # requests a second a replica
    p95_s: Annotated[DurationS, Field(gt=0)] | None = Field(default=None, alias="p95")
    queue_depth: float | None = Field(default=None, gt=0)  # waiting and unacknowledged tasks a replica


class CronWindow(Model):
    """At least `replicas` between two cron times."""

    start: str
    end: str
    time_zone: str = "UTC"
    replicas: int = Field(ge=0)


class Scale(Model):
    """`scale: 3` is short for min and max 3."""

    min: int = Field(default=1, ge=0)
    max: int = Field(default=1, ge=1)
    target: Target = Target()
    cron: tuple[CronWindow, ...] = ()
    behavior: Behavior = Behavior()


class Public(Model):
    """How the outside reaches a service. `public: /ingest` is short for `path`. The path is stripped by default."""

    path: str | None = None
    host: str | None = None
    strip_path: bool = True


class Sticky(Model):
    """Requests with the same key reach the same replica, as long as it lives."""

    header: str | None = None
    cookie: str | None = None


class Placement(Model):
    """Labels that a node must have, or should have."""

    require: StringMap = Field(default_factory=dict)
    prefer: StringMap = Field(default_factory=dict)


class Schedule(Model):
    """When a job runs. `schedule: "0 2 * * *"` is short for `cron`."""

    cron: str
    time_zone: str = "UTC"
    catch_up: Literal["none", "one", "all"] = "none"  # runs missed while nothing could fire


class Secret(Model):
    """`- NAME` is short for a file `NAME` in `$SHOAL_SECRETS`; `as: env` adds a variable."""

    name: str
    as_: Literal["file", "env"] = Field(default="file", alias="as")


class Agent(Model):
    """One agent: a service (it has a port), a worker (a queue) or a job (a schedule)."""

    image: str | None = None
    command: Argv | None = None
    working_dir: str | None = None
    environment: StringMap = Field(default_factory=dict)  # env_file is read into it, environment wins
    port: int | None = Field(default=None, ge=1, le=65535)
    protocol: Literal["http", "grpc"] = "http"
    public: Public | None = None
    health: Health = Health()
    idempotent: tuple[str, ...] = ()  # HTTP methods that may be sent again
    max_requests: int | None = Field(default=None, ge=1)  # in flight, fleet-wide; more get 503
    request_timeout_s: DurationS | None = Field(default=None, alias="request_timeout")  # None: streams may last
    sticky: Sticky | None = None
    resources: Resources = Resources()
    placement: Placement = Placement()
    scale: Scale = Scale()
    calls: tuple[str, ...] = ()
    queue: str | None = None
    publishes: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    stateful: bool = False
    volumes: tuple[str, ...] = ()  # NAME:PATH
    schedule: Schedule | None = None
    timeout_s: DurationS | None = Field(default=None, alias="timeout")  # of one run of a job
    retries: int = Field(default=0, ge=0)  # of one run of a job
    stop_grace_period_s: DurationS = Field(default=10.0, alias="stop_grace_period")

    @property
    def kind(self) -> Kind:
        """Inferred; a validated agent has exactly one of schedule, queue and port, or a queue and a port (worker)."""
        if self.schedule is not None:
            return Kind.JOB
        return Kind.WORKER if self.queue is not None else Kind.SERVICE


class Queue(Model):
    """A queue and what happens to tasks that fail. `main: {}` on the default broker needs no entry but its name."""

    broker: str = "main"
    max_attempts: int = Field(default=5, ge=1)
    ack_wait_s: DurationS = Field(default=30.0, alias="ack_wait")  # a silent worker loses the task after this


class Broker(Model):
    """`embedded` is NATS run by Shoal."""

    type: Literal["embedded"] = "embedded"


class External(Model):
    """A service outside of the fleet, reached through the gateway: `url` and how many requests may be in flight."""

    url: str
    max_requests: int | None = Field(default=None, ge=1)


class LocalOptions(Model):
    """What the local engine offers: GPUs that it can't see by itself, labels for placement, where the gateway binds."""

    gpus: int | None = Field(default=None, ge=0)
    labels: StringMap = Field(default_factory=dict)
    bind: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)  # 0: any free one


class Fleet(Model):
    """The whole spec, resolved for one environment."""

    fleet: str
    agents: Mapping[str, Agent]
    queues: Mapping[str, Queue] = Field(default_factory=dict)
    brokers: Mapping[str, Broker] = Field(default_factory=dict)
    external: Mapping[str, External] = Field(default_factory=dict)
    engine: Literal["local", "swarm", "kubernetes"] = "local"
    local: LocalOptions = LocalOptions()
    docker_context: str | None = None
    context: str | None = None
    namespace: str | None = None
    spec_version: int = SPEC_VERSION

    def to_document(self) -> dict[str, Any]:
        """The canonical JSON form: complete, by the keys that people write, stable to the byte once sorted."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Fleet:
        """The inverse of `to_document`."""
        return cls.model_validate(document)
