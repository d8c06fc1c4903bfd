"""What the gateway has to know, as values: control composes a `Snapshot`, the gateway renders it for its Envoy.

Nothing here speaks of Envoy, so that a gateway of another version than the controller can still be told what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A replica that may take requests, once Envoy's own check agrees. `identity` is what sticky requests keep to,
    where it outlives the replica; else they keep to its address."""

    replica: str
    host: str
    port: int
    weight: int = 1
    identity: str = ""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Envoy's active check: HTTP on `path`, or TCP where it is `None`."""

    path: str | None
    interval_s: float
    timeout_s: float
    retries: int


@dataclass(frozen=True, slots=True)
class AgentRoute:
    """One service. `max_requests` is fleet-wide: each gateway takes its share. While `hold` is set and nobody can
    serve, the gateway keeps requests (bounded) and reports them as held, until an endpoint is healthy."""

    agent: str
    protocol: str
    health: HealthCheck
    endpoints: tuple[Endpoint, ...] = ()
    public_path: str | None = None
    public_host: str | None = None
    strip_path: bool = True
    retry_methods: tuple[str, ...] = ()
    sticky_header: str | None = None
    sticky_cookie: str | None = None
    max_requests: int | None = None
    request_timeout_s: float | None = None
    hold: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """An agent that calls others, and how it is known: by its own loopback listener, or by its source addresses.

    It reaches the agent `b` under the path `/b` (stripped) or the authority `b` (for gRPC); an agent or external that
    is not in `may_call` answers 403, an unknown caller gets 503.
    """

    agent: str
    may_call: tuple[str, ...] = ()
    listener_port: int | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExternalRoute:
    """A service outside of the fleet. `base_path` is put before the request's path."""

    name: str
    host: str
    port: int
    tls: bool
    base_path: str = "/"
    max_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole of it. `internal_port` is the shared listener for callers known by address, where the engine has
    those; `gateways` is how many gateways live, by which fleet-wide limits are divided. With `access_log` each writes
    a line a request."""

    fleet: str
    bind: str
    public_port: int
    internal_port: int | None = None
    gateways: int = 1
    access_log: bool = False
    agents: Mapping[str, AgentRoute] = field(default_factory=dict[str, AgentRoute])
    callers: Mapping[str, Caller] = field(default_factory=dict[str, Caller])
    externals: Mapping[str, ExternalRoute] = field(default_factory=dict[str, ExternalRoute])


@dataclass(frozen=True, slots=True)
class Traffic:
    """Cumulative counts of one agent since its gateway's Envoy started, mergeable by addition, save `healthy`, of which
    the least of all gateways counts.

    `active` and `held` are of this instant; `latency_counts[i]` counts requests of at most `LATENCY_BOUNDS_MS[i]`
    (cumulative over i). A count that falls means that Envoy started anew.
    """

    active: int = 0
    held: int = 0
    requests: int = 0
    failures: int = 0  # answers of 5xx, the gateway's own included
    healthy: int = 0  # endpoints that Envoy takes for healthy
    latency_counts: tuple[int, ...] = ()


# Fine where people set targets; Envoy's histogram is told to use the same.
LATENCY_BOUNDS_MS: tuple[float, ...] = (
    1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 100, 125, 150, 175, 200, 250, 300, 350, 400, 500, 600, 750,
    900, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000, 7500, 10000, 15000, 20000, 30000, 60000, 120000, 300000,
)  # fmt: skip
