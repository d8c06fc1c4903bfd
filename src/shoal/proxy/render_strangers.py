"""Who calls before the gateway knows him: a container has its address only once it runs, and a job's calls at once.

A request has the routes of the moment in which it came. So that of a stranger goes to Envoy itself once more, by a
socket that nobody else is let at, and again after a while for as long as its answer says that nobody knows him; each
time it meets the routes of then.
"""

from __future__ import annotations

from typing import Any

from shoal.proxy.messages import TYPE_PREFIX, Json
from shoal.proxy.render_listeners import REMOTE_ADDRESS, SOURCE_HEADER, render_listener
from shoal.proxy.render_routes import STREAM_IDLE, respond

AGAIN = "again"
AGAIN_CLUSTER = "shoal-again"
ASKED_HEADER = "x-shoal-again"  # the caller's address, as it was seen the first time
_UNKNOWN_HEADER = "x-shoal-unknown"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# HTTP/2, which also brings the trailers of gRPC; an upgrade is a CONNECT there.
_HTTP2: Json = {"http2_protocol_options": {"allow_connect": True}}
_MOST = 1000
# Together 6 s on average: the controller hears of a container within a second, and more where all cores are busy.
_RETRIES: Json = {
    "retry_on": "retriable-headers",
    "retriable_headers": [{"name": _UNKNOWN_HEADER, "present_match": True}],
    "num_retries": 15,
    "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"},
}


def render_strangers() -> list[Json]:
    """The routes of who is not known by his address."""
    unknown = respond({"prefix": "/"}, 503, "the gateway does not know this caller (yet)")
    mark = {"header": {"key": _UNKNOWN_HEADER, "value": "1"}}
    asked = {"header": {"key": ASKED_HEADER, "value": REMOTE_ADDRESS}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    route = {"cluster": AGAIN_CLUSTER, "timeout": "0s", "idle_timeout": STREAM_IDLE, "retry_policy": _RETRIES}
    return [
        {
            **unknown,
            "match": {"prefix": "/", "headers": [{"name": ASKED_HEADER, "present_match": True}]},
            "response_headers_to_add": [*unknown["response_headers_to_add"], mark],
        },
        {
            "match": {"prefix": "/"},
            "route": route,
            "request_headers_to_add": [asked],
            "response_headers_to_remove": [_UNKNOWN_HEADER],
        },
    ]


def render_again_listener(routes: str, socket: str, hold_s: float) -> Json:
    """Where they come again. `routes` is the route configuration that they met first."""
    said = {"header": {"key": SOURCE_HEADER, "value": f"%REQ({ASKED_HEADER})%"}}
    mutations: tuple[Json, ...] = ({"append": {**said, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},)
    # What is done once with a request was done the first time: x-forwarded-for, and taking out nobody's names.
    manager: dict[str, Any] = {"use_remote_address": False, **_HTTP2}
    address = {"pipe": {"path": socket}}
    return render_listener(AGAIN, address, hold_s, routes=routes, mutations=mutations, manager=manager)


def render_again_cluster(socket: str) -> Json:
    """That listener, as somebody to send requests to."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": socket}}}}
    everybody = {"budget_percent": {"value": 100}, "min_retry_concurrency": _MOST}
    options = {"@type": TYPE_PREFIX + _HTTP_OPTIONS, "explicit_http_config": _HTTP2}
    return {
        "name": AGAIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": AGAIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [{"max_requests": _MOST, "retry_budget": everybody}]},
        "typed_extension_protocol_options": {_HTTP_OPTIONS: options},
    }
