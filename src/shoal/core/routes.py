"""What the gateway is told, composed from the fleet and the replicas that serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from shoal.core.observed import AgentObserved, Replica, identity_name
from shoal.core.routing import AgentRoute, Caller, Endpoint, ExternalRoute, HealthCheck
from shoal.spec.model import Agent, External


def route_for(name: str, agent: Agent, serving: Sequence[Replica], *, hold: bool) -> AgentRoute:
    """One service's route. Its endpoints are in a stable order, so that equal input gives equal output."""
    public = agent.public
    sticky = agent.sticky
    return AgentRoute(
        agent=name,
        protocol=agent.protocol,
        health=HealthCheck(agent.health.path, agent.health.interval_s, agent.health.timeout_s, agent.health.retries),
        endpoints=tuple(
            Endpoint(r.id, r.host, r.port, identity="" if r.ordinal is None else identity_name(name, r.ordinal))
            for r in sorted(serving, key=lambda r: r.id)
            if r.host is not None and r.port is not None
        ),
        public_path=public.path if public else None,
        public_host=public.host if public else None,
        strip_path=public.strip_path if public else True,
        retry_methods=agent.idempotent,
        sticky_header=sticky.header if sticky else None,
        sticky_cookie=sticky.cookie if sticky else None,
        max_requests=agent.max_requests,
        request_timeout_s=agent.request_timeout_s,
        hold=hold,
    )


def caller_for(callees: tuple[str, ...], port: int | None, observed: AgentObserved) -> Caller | None:
    """How an agent is known that may call the `callees`; `port` is its own listener's. `None` where it is not known."""
    if not callees:
        port = None
    addresses = tuple(sorted({each.source for each in (*observed.replicas, *observed.runs) if each.source}))
    return None if port is None and not addresses else Caller(observed.agent, callees, port, addresses)


def externals_for(externals: Mapping[str, External]) -> dict[str, ExternalRoute]:
    """The declared services outside of the fleet. Their URLs were checked when the file was read."""
    routes: dict[str, ExternalRoute] = {}
    for name, external in externals.items():
        url = urlsplit(external.url)
        tls = url.scheme == "https"
        port = url.port or (443 if tls else 80)
        routes[name] = ExternalRoute(name, url.hostname or "", port, tls, url.path or "/", external.max_requests)
    return routes
