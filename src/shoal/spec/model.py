"""The spec as values: what people write and, once defaults and shorthands are resolved, what everything else reads.

One set of models serves both: a validated `Fleet` is frozen and complete, `to_document` gives its canonical JSON form,
which is stored, hashed and diffed. Keys are Compose's where Compose has the concept, else Kubernetes', in snake_case;
attributes carry their unit (`timeout_s`) where the key does not (`timeout`).

A model says what one value may be. What two values may be together is said by `shoal.spec.checks`, and what people may
write beside this by `shoal.spec.written`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from shoal.spec.block import Model
from shoal.spec.engine_options import KubernetesOptions, LocalOptions, SwarmOptions
from shoal.spec.scaling import Scale
from shoal.spec.values import (
    Argv,
    Assignments,
    Boolean,
    Capability,
    CpuCores,
    DurationS,
    Integer,
    MemoryBytes,
    Names,
    Share,
    StringMap,
    User,
)

SPEC_VERSION = 1


class Kind(StrEnum):
    """What an agent is, inferred from what it has: a port, a queue or a schedule."""

    SERVICE = "service"
    WORKER = "worker"
    JOB = "job"


class Health(Model):
    """How the gateway and the engine see that a replica can take traffic. `health: /healthz` is short for `path`."""

    shorthand: ClassVar[tuple[str, ...]] = ("path",)

    path: str | None = Field(
        default=None,
        pattern=r"^/[^\s#]*$",
        description="The HTTP path that answers 2xx when the replica is well; without it a TCP connection is enough.",
    )
    interval_s: Annotated[DurationS, Field(gt=0)] = Field(
        default=2.0, alias="interval", description="The time between two checks."
    )
    timeout_s: Annotated[DurationS, Field(gt=0)] = Field(
        default=2.0, alias="timeout", description="How long a check may take."
    )
    retries: Integer = Field(
        default=3,
        ge=1,
        le=1000,
        description="Failures in a row until a replica is sent nothing, as long as another is well; after five times "
        "as many it is started anew.",
    )
    start_period_s: DurationS = Field(default=60.0, alias="start_period", description="How long a start may take.")


class Resources(Model):
    """What a replica asks for; memory is also its limit."""

    cpu: Annotated[CpuCores, Field(gt=0)] | None = Field(
        default=None, description="The cores a replica asks for, such as `500m` or `2`."
    )
    memory_bytes: Annotated[MemoryBytes, Field(ge=4 * 2**20)] | None = Field(
        default=None, alias="memory", description="The memory a replica asks for and may not exceed, such as `256Mi`."
    )
    gpu: Integer = Field(default=0, ge=0, le=1024, description="The GPUs a replica has for itself.")


class Update(Model):
    """How a new version takes over. A stateful agent is replaced one ordinal after the other, the highest first."""

    max_surge: Share = Field(
        default="25%", description="Replicas above the wished count, or percent of it, rounded up."
    )
    max_unavailable: Share = Field(
        default=0, description="Replicas that may be missing meanwhile, or percent of the count, rounded down."
    )
    min_ready_time_s: DurationS = Field(
        default=1.0,
        alias="min_ready_time",
        description="How long a new replica has to stay ready until an old one goes for it.",
    )
    progress_deadline_s: Annotated[DurationS, Field(gt=0)] | None = Field(
        default=None,
        alias="progress_deadline",
        description="The time without progress after which the new version is given up and the old one serves alone "
        "again; by default twice `health.start_period`, at least 2 minutes.",
    )


class Public(Model):
    """How the outside reaches a service. `public: /ingest` is short for `path`."""

    shorthand: ClassVar[tuple[str, ...]] = ("path",)

    path: str | None = Field(
        default=None,
        pattern=r"^/[^\s?#]*$",
        description="The path under which the gateway serves it, with all that is below.",
    )
    host: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$",
        max_length=253,
        description="The host name for which the gateway serves it, in lower case; without it any.",
    )
    strip_path: Boolean = Field(default=True, description="Whether the service sees the request without `path`.")


class Sticky(Model):
    """Requests with the same key reach the same replica, as long as it lives. One of `header` and `cookie`."""

    header: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", description="The request header that holds the key."
    )
    cookie: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", description="The cookie that holds the key."
    )


class Placement(Model):
    """Labels that a node must have, or should have, and how replicas are shared out."""

    require: StringMap = Field(default_factory=dict, description="Labels that a node must have.")
    prefer: StringMap = Field(default_factory=dict, description="Labels that a node should have.")
    spread: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$",
        description="A label of nodes, such as `zone`: as many replicas where it has the one value as where another.",
    )
    max_per_node: Integer | None = Field(
        default=None, ge=1, description="How many replicas of one version a node has at most."
    )


class Schedule(Model):
    """When a job runs. `schedule: "0 2 * * *"` is short for `cron`."""

    shorthand: ClassVar[tuple[str, ...]] = ("cron",)

    cron: str = Field(description="The cron expression: minute, hour, day of month, month, day of week.")
    time_zone: str = Field(default="UTC", description="The time zone of the expression, such as `Europe/Berlin`.")
    catch_up: Literal["none", "one", "all"] = Field(
        default="none", description="Which of the runs missed while nothing could start them are made up for."
    )


class Secret(Model):
    """`- NAME` is short for a file `NAME` in the directory `$SHOAL_SECRETS`."""

    shorthand: ClassVar[tuple[str, ...]] = ("name",)

    name: str = Field(description="The name of the secret, and of the file that the agent finds it in.")
    as_: Literal["file", "env"] = Field(
        default="file", alias="as", description="`env` gives the agent a variable of that name beside the file."
    )


class SecretSource(Model):
    """Where `up` finds what a secret holds: exactly one of `file`, `environment` and `command`."""

    file: str | None = Field(
        default=None, min_length=1, description="A file, taken byte by byte; found from the file that names it."
    )
    environment: str | None = Field(
        default=None, min_length=1, description="A variable of the process, or of `.env` beside the first file."
    )
    command: Argv | None = Field(
        default=None,
        description="A program that writes it to its standard output; the newline at the end is no part of it. A "
        "string is split as a shell would split it, and never run by a shell.",
    )


class Agent(Model):
    """One agent: a service (it has a `port`), a worker (a `queue`) or a job (a `schedule`)."""

    image: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$",
        description="The container image; the fleet's `image` where an agent gives none.",
    )
    command: Argv | None = Field(
        default=None,
        description="The program and its arguments; a string is split as a shell would split it. "
        "`$PORT` and `$SHOAL_...` are put in when a replica starts.",
    )
    working_dir: str | None = Field(default=None, min_length=1, description="The directory the command runs in.")
    user: User | None = Field(
        default=None,
        description="Whom a container runs as, `USER` or `USER:GROUP`, by number or by the image's names; by default "
        "whom the image says, and nobody (65534) where that is root.",
    )
    cap_add: tuple[Capability, ...] = Field(
        default=(),
        description="What root may in a container, such as `CHOWN`; by default it has no capability.",
    )
    read_only: Boolean = Field(
        default=True, description="Whether the image's files are only read; `/tmp`, `volumes` and `tmpfs` are not."
    )
    environment: Assignments = Field(
        default_factory=dict, description="Variables of the agent, over those of `env_file` and those of the fleet."
    )
    port: Integer | None = Field(
        default=None, ge=1, le=65535, description="The port a service listens on; a local replica has its own `$PORT`."
    )
    protocol: Literal["http", "grpc"] = Field(default="http", description="What a service speaks on its port.")
    public: Public | None = Field(default=None, description="How the outside reaches a service; without it nobody can.")
    health: Health = Field(default=Health(), description="How it is seen that a replica of a service can take traffic.")
    idempotent: Names = Field(default=(), description="HTTP methods that may be sent again when a replica fails.")
    max_requests: Integer | None = Field(
        default=None, ge=1, le=10**9, description="Requests in flight, fleet-wide; one more gets a 503."
    )
    request_timeout_s: Annotated[DurationS, Field(gt=0)] | None = Field(
        default=None, alias="request_timeout", description="How long a request may take; without it streams may last."
    )
    sticky: Sticky | None = Field(default=None, description="Which requests reach the same replica.")
    resources: Resources = Field(default=Resources(), description="What a replica asks for.")
    placement: Placement = Field(default=Placement(), description="Which nodes replicas run on.")
    scale: Scale = Field(default=Scale(), description="How many replicas there are; a job has none.")
    update: Update = Field(default=Update(), description="How a new version takes over; a job has none.")
    calls: Names = Field(default=(), description="The services of the fleet and the externals that the agent calls.")
    depends_on: Names = Field(
        default=(),
        description="The services and workers that have to be ready before this one is first started.",
    )
    queue: str | None = Field(default=None, description="The queue a worker takes its tasks from.")
    publishes: Names = Field(default=(), description="The queues that the agent puts tasks into.")
    secrets: tuple[Secret, ...] = Field(default=(), description="The secrets that the agent may read.")
    stateful: Boolean = Field(
        default=False, description="Whether each replica keeps its name and its volumes for good, as in a StatefulSet."
    )
    volumes: tuple[str, ...] = Field(
        default=(),
        description="What outlives replicas, and where they find it: `NAME:PATH`, kept by Shoal, one for each replica "
        "of a stateful agent, else one for all that name it; or `DIRECTORY:PATH`, found from the file that names it. "
        "`:ro` at the end says that it is only read.",
    )
    tmpfs: tuple[str, ...] = Field(
        default=(),
        description="Directories in memory, empty at each start of a replica, its own, and gone with it: `PATH`, or "
        "`PATH:size=64Mi`.",
    )
    shm_size_bytes: Annotated[MemoryBytes, Field(gt=0)] | None = Field(
        default=None, alias="shm_size", description="How much `/dev/shm` holds at least, such as `1Gi`."
    )
    schedule: Schedule | None = Field(default=None, description="When a job runs.")
    timeout_s: Annotated[DurationS, Field(gt=0)] | None = Field(
        default=None, alias="timeout", description="How long one run of a job may take."
    )
    retries: Integer = Field(default=0, ge=0, le=1000, description="How often a failed run of a job is tried again.")
    stop_grace_period_s: DurationS = Field(
        default=10.0, alias="stop_grace_period", description="The time between SIGTERM and SIGKILL."
    )

    @property
    def kind(self) -> Kind:
        """Inferred; a validated agent has exactly one of schedule, queue and port."""
        if self.schedule is not None:
            return Kind.JOB
        return Kind.WORKER if self.queue is not None else Kind.SERVICE


class Queue(Model):
    """A queue and what happens to tasks that fail. A queue on the default broker needs no entry."""

    broker: str = Field(default="main", description="The broker that holds the queue.")
    max_attempts: Integer = Field(default=5, ge=1, le=10**6, description="How often a task is tried in all.")
    ack_wait_s: Annotated[DurationS, Field(gt=0)] = Field(
        default=30.0, alias="ack_wait", description="A worker that is silent for this long loses its task."
    )


class Broker(Model):
    """What holds queues."""

    type: Literal["embedded", "rabbitmq"] = Field(
        default="embedded", description="`embedded` is NATS run by Shoal; `rabbitmq` a RabbitMQ that you run."
    )
    url: str | None = Field(
        default=None,
        description="Where a RabbitMQ is, without user and password: `amqp://HOST:PORT/VHOST`, or `amqps://...`.",
    )
    management_url: str | None = Field(
        default=None,
        description="Where its management API is, which tells how much is being worked on; by default the same host, "
        "port 15672, or 15671 with `amqps`.",
    )
    secret: str | None = Field(
        default=None,
        description="The secret that holds `user:password`; each agent with a queue on the broker gets it as a file. "
        "Without it both are `guest`.",
    )


class External(Model):
    """A service outside of the fleet, reached through the gateway."""

    url: str = Field(
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", description="Where it is, such as `https://api.openai.com`."
    )
    max_requests: Integer | None = Field(
        default=None, ge=1, le=10**9, description="Requests in flight, fleet-wide; one more gets a 503."
    )


class Registry(Model):
    """A registry that asks who pulls images from it."""

    secret: str = Field(description="The secret that holds `user:password`.")


class Gateway(Model):
    """What the gateway of the fleet does."""

    access_log: Boolean = Field(
        default=False, description="Whether each request is a line of JSON in the gateway's `access.log`."
    )


class Metrics(Model):
    """Metrics in the text format of Prometheus."""

    port: Integer | None = Field(
        default=None, ge=1, le=65535, description="The port on loopback with `/metrics`; without it there is none."
    )


class Fleet(Model):
    """The whole spec, resolved for one environment."""

    fleet: str = Field(description="The name of the fleet.")
    agents: Mapping[str, Agent] = Field(description="The agents by name.")
    queues: Mapping[str, Queue] = Field(default_factory=dict, description="The queues by name.")
    brokers: Mapping[str, Broker] = Field(default_factory=dict, description="The brokers by name.")
    external: Mapping[str, External] = Field(default_factory=dict, description="Services outside of the fleet by name.")
    registries: Mapping[str, Registry] = Field(
        default_factory=dict,
        description="How images are pulled, by the registry's host, such as `ghcr.io` or `registry.lab:5000`; of the "
        "engines `swarm` and `kubernetes`.",
    )
    secrets: Mapping[str, SecretSource] = Field(
        default_factory=dict,
        description="Where secrets come from, by name; one without an entry is the variable of its name.",
    )
    engine: Literal["local", "swarm", "kubernetes"] = Field(default="local", description="What runs the fleet.")
    local: LocalOptions = Field(default=LocalOptions(), description="What the local engine offers.")
    swarm: SwarmOptions = Field(default=SwarmOptions(), description="How the engine `swarm` runs the fleet.")
    kubernetes: KubernetesOptions = Field(
        default=KubernetesOptions(), description="How the engine `kubernetes` runs the fleet."
    )
    gateway: Gateway = Field(default=Gateway(), description="What the gateway does beside serving requests.")
    metrics: Metrics = Field(default=Metrics(), description="Where Prometheus finds Shoal's own metrics.")
    docker_context: str | None = Field(default=None, description="The Docker context of the engine `swarm`.")
    context: str | None = Field(default=None, description="The kubeconfig context of the engine `kubernetes`.")
    namespace: str | None = Field(
        default=None, pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="The namespace on Kubernetes."
    )
    spec_version: int = Field(default=SPEC_VERSION, description="Under which version's defaults it was resolved.")

    def to_document(self) -> dict[str, Any]:
        """The canonical JSON form: complete, by the keys that people write, stable to the byte once sorted."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Fleet:
        """The inverse of `to_document`."""
        return cls.model_validate(document)
