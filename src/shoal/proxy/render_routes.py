"""Which request goes where: public paths and hosts, and what one agent may call.

The order of routes decides: a callee's own routes stand before the answers for everybody else.
"""

from __future__ import annotations

import json
import re
from typing import Any

from shoal.core.routing import AgentRoute, ExternalRoute
from shoal.proxy.messages import TYPE_PREFIX, Json
from shoal.proxy.render_clusters import agent_cluster, external_cluster, seconds

STREAM_IDLE = "300s"
HOLD_FILTER = "envoy.filters.http.ext_authz"

_PREFIX = "x-forwarded-prefix"

# The request has not reached the replica's code: it may be sent to another whatever it does.
_SAFE = "connect-failure,refused-stream,reset-before-request"
_IDEMPOTENT = _SAFE + ",reset,retriable-status-codes"


def render_public_routes(route: AgentRoute) -> tuple[Json, ...]:
    """The agent's routes on the public listener, one for each way to match and each retry policy."""
    path = (route.public_path or "/").rstrip("/")
    if not path or not route.strip_path:  # an agent would believe the client's, where we set none
        match: Json = {"path_separated_prefix": path} if path else {"prefix": "/"}
        return tuple({**one, "request_headers_to_remove": [_PREFIX]} for one in _agent_routes(route, match, {}))
    header = {"key": _PREFIX, "value": path}
    added = {"request_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}
    return tuple({**one, **added} for match, action in _stripped(path) for one in _agent_routes(route, match, action))


def render_call_routes(callee: AgentRoute) -> tuple[Json, ...]:
    """The routes by which a caller reaches the callee: its name as authority (gRPC), or as the path's first part."""
    routes = _agent_routes(callee, {"prefix": "/", "headers": [_authority(callee.agent)]}, {})
    for match, action in _stripped(f"/{callee.agent}"):
        routes += _agent_routes(callee, match, action)
    return routes


def render_external_routes(external: ExternalRoute) -> tuple[Json, ...]:
    """The same for a service outside of the fleet, which sees its own name as Host."""
    host = external.host
    if external.port != (443 if external.tls else 80):
        host = f"{host}:{external.port}"
    shared = {
        "cluster": external_cluster(external.name),
        "timeout": "0s",
        "idle_timeout": STREAM_IDLE,
        "host_rewrite_literal": host,
        "retry_policy": _retries(_SAFE),
    }
    base = external.base_path.rstrip("/")
    by_authority: Json = {"prefix": "/", "headers": [_authority(external.name)]}
    ways = ((by_authority, {"prefix_rewrite": f"{base}/"}), *_stripped(f"/{external.name}", base))
    return tuple({"name": external.name, "match": match, "route": {**shared, **action}} for match, action in ways)


def _stripped(path: str, base: str = "") -> tuple[tuple[Json, Json], ...]:
    """Matches the path and what is below it, and puts `base` in its place. Two plain prefixes: one regular expression
    would do, and cost each request more than all of its other routing."""
    rewrite = {"prefix_rewrite": f"{base}/"}
    return (({"prefix": f"{path}/"}, rewrite), ({"path": path}, rewrite))


def respond(match: Json, status: int, error: str) -> Json:
    """An answer of the gateway's own: a short JSON body."""
    body = json.dumps({"error": error}) + "\n"
    header = {"key": "content-type", "value": "application/json"}
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": body}},
        "response_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def unavailable(name: str) -> tuple[Json, ...]:
    """What a declared callee answers that the gateway does not know yet."""
    error = f"{name} is not there (yet)"
    return (
        respond({"prefix": "/", "headers": [_authority(name)]}, 503, error),
        respond({"path_separated_prefix": f"/{name}"}, 503, error),
    )


def _agent_routes(route: AgentRoute, match: Json, action: Json) -> tuple[Json, ...]:
    shared: dict[str, Any] = {
        "cluster": agent_cluster(route.agent),
        "timeout": seconds(route.request_timeout_s) if route.request_timeout_s else "0s",
        "idle_timeout": STREAM_IDLE,
        **action,
    }
    if policies := _hash_policies(route):
        shared["hash_policy"] = policies
    extra: dict[str, Any] = {"typed_per_filter_config": {HOLD_FILTER: _hold(route.agent)}} if route.hold else {}
    extra = {"name": route.agent, **extra}
    safe = {"match": match, "route": {**shared, "retry_policy": _retries(_SAFE)}, **extra}
    if not route.retry_methods:
        return (safe,)
    methods = "|".join(sorted(re.escape(method.upper()) for method in route.retry_methods))
    header = {"name": ":method", "string_match": {"safe_regex": {"regex": methods}}}
    repeatable = {**match, "headers": [*match.get("headers", ()), header]}
    return ({"match": repeatable, "route": {**shared, "retry_policy": _retries(_IDEMPOTENT)}, **extra}, safe)


def _hash_policies(route: AgentRoute) -> list[Json]:
    """By a key that the client already has: a cookie that Envoy mints moves the user on the second request."""
    policies: list[Json] = []
    if route.sticky_header:
        policies.append({"header": {"header_name": route.sticky_header}, "terminal": True})
    if route.sticky_cookie:
        policies.append({"cookie": {"name": route.sticky_cookie}, "terminal": True})
    return policies


def _hold(agent: str) -> Json:
    return {
        "@type": TYPE_PREFIX + "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "check_settings": {"context_extensions": {"agent": agent}},
    }


def _authority(name: str) -> Json:
    regex = {"regex": f"{re.escape(name)}(:[0-9]+)?"}
    return {"name": ":authority", "string_match": {"safe_regex": regex}}


# As many of an agent's replicas may die at once, with their machine, and be tried first, as dead ones are idle.
_RETRIES = 5
# Another replica is chosen anew until it is none that was tried already. One idle and dead of two is taken by 31 of
# 32 choices, so that by so many in a row it is in 1 of 560; each takes less than a microsecond.
_ATTEMPTS = 200


def _retries(retry_on: str) -> Json:
    previous = {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {"@type": TYPE_PREFIX + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
    }
    policy: dict[str, Any] = {
        "retry_on": retry_on,
        "num_retries": _RETRIES,
        "retry_host_predicate": [previous],
        "host_selection_retry_max_attempts": _ATTEMPTS,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
    }
    if "retriable-status-codes" in retry_on:
        policy["retriable_status_codes"] = [503]
    return policy
