"""A snapshot as Envoy's resources: pure, and remembered agent by agent, so that a change of one renders one.

What is unchanged comes back as the same object, which is how the encoder knows that there is nothing to encode.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shoal.core.routing import AgentRoute, Caller, ExternalRoute, Snapshot
from shoal.errors import GatewayError
from shoal.proxy.messages import TYPE_PREFIX, Json
from shoal.proxy.render_access_log import ADDED_HEADERS
from shoal.proxy.render_clusters import (
    agent_cluster,
    external_cluster,
    is_ip,
    render_agent_cluster,
    render_assignment,
    render_external_cluster,
)
from shoal.proxy.render_listeners import NOBODYS_NAMES, PUBLIC, SOURCE_HEADER, TELLS_SOURCE, render_listener
from shoal.proxy.render_routes import (
    render_call_routes,
    render_external_routes,
    render_public_routes,
    respond,
    unavailable,
)
from shoal.proxy.render_strangers import (
    AGAIN,
    AGAIN_CLUSTER,
    ASKED_HEADER,
    render_again_cluster,
    render_again_listener,
    render_strangers,
)

INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Resources:
    """What Envoy is told, by kind and name; values are protobuf's JSON form."""

    clusters: Mapping[str, Json] = field(default_factory=dict[str, Json])
    assignments: Mapping[str, Json] = field(default_factory=dict[str, Json])
    listeners: Mapping[str, Json] = field(default_factory=dict[str, Json])
    routes: Mapping[str, Json] = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True)
class _Agent:
    cluster: Json
    assignment: Json
    public: tuple[Json, ...]
    calls: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class _External:
    cluster: Json
    calls: tuple[Json, ...]


class Renderer:
    """Renders one snapshot after the other. `ca_file` holds the authorities by which externals are verified; `hold_s`
    is how long a request may wait for a first replica; `access_log` is the file where a snapshot wants one; `again` is
    the socket by which Envoy reaches itself."""

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        hold_s: float = 60.0,
        access_log: str = "/dev/stdout",
        again: str = "@shoal-again",
    ) -> None:
        self._again_listener = render_again_listener(INTERNAL, again, hold_s)
        self._again_cluster = render_again_cluster(again)
        self._access_log = access_log
        self._logs = False
        self._ca_file = ca_file
        self._hold_s = hold_s
        self._agents: dict[str, tuple[AgentRoute, int, _Agent]] = {}
        self._externals: dict[str, tuple[ExternalRoute, int, _External]] = {}
        self._values: dict[str, Json] = {}
        self._public: tuple[Mapping[str, object], Json] | None = None

    def render(self, snapshot: Snapshot) -> Resources:
        """Raises GatewayError where the snapshot can't be rendered; nothing is remembered of it then."""
        check_snapshot(snapshot, self._ca_file)
        self._logs = snapshot.access_log
        agents = self._render_agents(snapshot)
        externals = self._render_externals(snapshot)
        listeners: dict[str, Json] = {}
        routes: dict[str, Json] = {}
        self._add_listener(listeners, PUBLIC, snapshot.bind, snapshot.public_port)
        routes[PUBLIC] = self._render_public(snapshot, agents)
        by_port = [caller for caller in snapshot.callers.values() if caller.listener_port is not None]
        for caller in by_port:
            name = f"caller-{caller.agent}"
            self._add_listener(listeners, name, "127.0.0.1", caller.listener_port or 0)
            routes[name] = _configuration(name, [_host(name, ["*"], _caller_routes(caller, agents, externals))])
        if snapshot.internal_port is not None:
            self._add_listener(listeners, INTERNAL, snapshot.bind, snapshot.internal_port)
            routes[INTERNAL] = _internal_configuration(snapshot, agents, externals)
            listeners[AGAIN] = self._again_listener
        if self._logs:
            routes = {name: {**value, "request_headers_to_add": ADDED_HEADERS} for name, value in routes.items()}
        clusters = {agent_cluster(name): agent.cluster for name, agent in agents.items()}
        clusters |= {external_cluster(name): external.cluster for name, external in externals.items()}
        if snapshot.internal_port is not None:
            clusters[AGAIN_CLUSTER] = self._again_cluster
        assignments = {agent_cluster(name): agent.assignment for name, agent in agents.items()}
        routes = {name: self._same(f"routes {name}", value) for name, value in routes.items()}
        self._values = {f"listener {name}": value for name, value in listeners.items()}
        self._values |= {f"routes {name}": value for name, value in routes.items()}
        return Resources(clusters, assignments, listeners, routes)

    def _render_agents(self, snapshot: Snapshot) -> dict[str, _Agent]:
        kept: dict[str, tuple[AgentRoute, int, _Agent]] = {}
        for name, route in snapshot.agents.items():
            known = self._agents.get(name)
            if known is None or known[0] is not route or known[1] != snapshot.gateways:
                known = (route, snapshot.gateways, _render_agent(route, snapshot.gateways, known[2] if known else None))
            kept[name] = known
        self._agents = kept
        return {name: entry[2] for name, entry in kept.items()}

    def _render_externals(self, snapshot: Snapshot) -> dict[str, _External]:
        kept: dict[str, tuple[ExternalRoute, int, _External]] = {}
        for name, route in snapshot.externals.items():
            known = self._externals.get(name)
            if known is None or known[0] is not route or known[1] != snapshot.gateways:
                cluster = render_external_cluster(route, snapshot.gateways, self._ca_file)
                known = (route, snapshot.gateways, _External(cluster, render_external_routes(route)))
            kept[name] = known
        self._externals = kept
        return {name: entry[2] for name, entry in kept.items()}

    def _render_public(self, snapshot: Snapshot, agents: Mapping[str, _Agent]) -> Json:
        """Most changes are of endpoints: then it is the configuration of the last time."""
        made_of = {
            name: (route.public_host, route.public_path, agents[name].public) for name, route in snapshot.agents.items()
        }
        if self._public is None or self._public[0] != made_of:
            self._public = (made_of, _public_configuration(snapshot, agents))
        return self._public[1]

    def _add_listener(self, listeners: dict[str, Json], name: str, address: str, port: int) -> None:
        log = self._access_log if self._logs else None
        mutations = (*NOBODYS_NAMES, TELLS_SOURCE) if name == INTERNAL else None
        at = {"socket_address": {"address": address, "port_value": port}}
        listener = render_listener(name, at, self._hold_s, access_log=log, mutations=mutations)
        listeners[name] = self._same(f"listener {name}", listener)

    def _same(self, key: str, value: Json) -> Json:
        """The object of the last time, if it is equal."""
        known = self._values.get(key)
        if known is not None and known == value:
            return known
        self._values[key] = value
        return value


def _render_agent(route: AgentRoute, gateways: int, before: _Agent | None) -> _Agent:
    """Mostly it is the endpoints that change: an equal cluster stays the same object, and is not sent again."""
    after = _Agent(
        cluster=render_agent_cluster(route, gateways),
        assignment=render_assignment(route),
        public=render_public_routes(route) if route.public_path or route.public_host else (),
        calls=render_call_routes(route),
    )
    if before is None:
        return after
    return _Agent(
        cluster=before.cluster if before.cluster == after.cluster else after.cluster,
        assignment=before.assignment if before.assignment == after.assignment else after.assignment,
        public=before.public if before.public == after.public else after.public,
        calls=before.calls if before.calls == after.calls else after.calls,
    )


def _public_configuration(snapshot: Snapshot, agents: Mapping[str, _Agent]) -> Json:
    by_host: dict[str, list[str]] = {"*": []}
    for name, route in snapshot.agents.items():
        if agents[name].public:
            by_host.setdefault(route.public_host or "*", []).append(name)
    nothing = respond({"prefix": "/"}, 404, "no agent is published here")
    hosts: list[Json] = []
    for host, names in sorted(by_host.items()):
        # The longest path first: Envoy takes the first route that matches.
        names.sort(key=lambda name: (-len((snapshot.agents[name].public_path or "/").rstrip("/")), name))
        routes = [route for name in names for route in agents[name].public]
        hosts.append(_host(f"host {host}", [host], [*routes, nothing]))
    return _configuration(PUBLIC, hosts)


def _caller_routes(caller: Caller, agents: Mapping[str, _Agent], externals: Mapping[str, _External]) -> list[Json]:
    routes: list[Json] = []
    for callee in caller.may_call:
        known = agents.get(callee) or externals.get(callee)
        routes += known.calls if known is not None else unavailable(callee)
    error = f"{caller.agent} declares no call to this agent"
    return [*routes, respond({"prefix": "/"}, 403, error)]


def _internal_configuration(
    snapshot: Snapshot, agents: Mapping[str, _Agent], externals: Mapping[str, _External]
) -> Json:
    """One listener for all callers, told apart by source address within the routes: a replica that comes or goes
    changes no listener, so no connection is cut."""
    known: dict[str, Json] = {}
    for caller in snapshot.callers.values():
        if caller.addresses:
            on_match = _route_list(caller.agent, _caller_routes(caller, agents, externals))
            known |= {str(ipaddress.ip_address(address)): on_match for address in caller.addresses}
    matcher: dict[str, Any] = {"on_no_match": _route_list("stranger", render_strangers())}
    if known:
        by_source = {"@type": TYPE_PREFIX + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"}
        matcher["matcher_tree"] = {
            "input": {"name": "source", "typed_config": {**by_source, "header_name": SOURCE_HEADER}},
            "exact_match_map": {"map": known},
        }
    host = {"name": INTERNAL, "domains": ["*"], "matcher": matcher}
    return {
        **_configuration(INTERNAL, [host]),
        "request_headers_to_remove": [SOURCE_HEADER, ASKED_HEADER],
        "most_specific_header_mutations_wins": True,  # a stranger's route tells who he is all the same
    }


def _route_list(name: str, routes: list[Json]) -> Json:
    route_list = {"@type": TYPE_PREFIX + "envoy.config.route.v3.RouteList", "routes": routes}
    return {"action": {"name": name, "typed_config": route_list}}


def _configuration(name: str, hosts: list[Json]) -> Json:
    return {"name": name, "virtual_hosts": hosts, "ignore_port_in_host_matching": True}


def _host(name: str, domains: list[str], routes: list[Json]) -> Json:
    return {"name": name, "domains": domains, "routes": routes}


def check_snapshot(snapshot: Snapshot, ca_file: str | None) -> None:
    """Raises GatewayError for what Envoy would refuse, or worse, accept and answer with 503."""
    problems = list(_problems(snapshot, ca_file))
    if problems:
        raise GatewayError("the gateway can't use this snapshot: " + "; ".join(problems))


def _problems(snapshot: Snapshot, ca_file: str | None) -> Iterator[str]:
    yield from _key_problems("agent", ((name, route.agent) for name, route in snapshot.agents.items()))
    yield from _key_problems("caller", ((name, caller.agent) for name, caller in snapshot.callers.items()))
    yield from _key_problems("external", ((name, route.name) for name, route in snapshot.externals.items()))
    for name in sorted(set(snapshot.agents) & set(snapshot.externals)):
        yield f"{name} is both an agent and an external"
    for name, route in snapshot.agents.items():
        for endpoint in route.endpoints:
            if not is_ip(endpoint.host):
                yield f"{name}: replica {endpoint.replica} has the host {endpoint.host!r}, expected an IP address"
            if endpoint.weight < 1:
                yield f"{name}: replica {endpoint.replica} has the weight {endpoint.weight}, expected at least 1"
    for caller in snapshot.callers.values():
        for address in caller.addresses:
            if not is_ip(address):
                yield f"caller {caller.agent} has the address {address!r}, expected an IP address"
    for name, external in snapshot.externals.items():
        if external.tls and ca_file is None:
            yield f"{name}: found no file of certificate authorities on this machine (install ca-certificates)"
    ports = [snapshot.public_port, *([snapshot.internal_port] if snapshot.internal_port else [])]
    ports += [caller.listener_port for caller in snapshot.callers.values() if caller.listener_port is not None]
    for port in sorted({port for port in ports if ports.count(port) > 1}):
        yield f"two listeners want port {port}"


def _key_problems(kind: str, names: Iterable[tuple[str, str]]) -> Iterator[str]:
    for key, name in names:
        if key != name:
            yield f"{kind} {name} is listed as {key}"
