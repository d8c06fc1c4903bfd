"""Where Envoy listens, and the limits that keep one client from exhausting it or smuggling requests past it."""

from __future__ import annotations

from typing import Any

from shoal.proxy.messages import TYPE_PREFIX, Json
from shoal.proxy.render_access_log import render_access_log
from shoal.proxy.render_clusters import ADS, seconds
from shoal.proxy.render_routes import HOLD_FILTER, STREAM_IDLE

PUBLIC = "public"
GATEWAY_CLUSTER = "shoal-gateway"  # the gateway process: ADS and the hold
RETRY_AFTER_S = 5
SOURCE_HEADER = "x-shoal-source"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def render_listener(
    name: str,
    address: Json,
    hold_s: float,
    *,
    access_log: str | None = None,
    routes: str | None = None,
    mutations: tuple[Json, ...] | None = None,
    manager: Json | None = None,
) -> Json:
    """A listener. `routes` is the name of its route configuration, by default its own; `mutations` change headers
    before a route is chosen, `manager` has what is otherwise with its connections; `access_log` is a file."""
    return {
        "name": name,
        "address": address,
        # With SO_REUSEPORT the Envoy of another fleet of this user could listen at the same port, and take half of the
        # requests, with no error anywhere.
        "enable_reuse_port": False,
        "connection_balance_config": {"exact_balance": {}},
        # Where clients have used up all connections, agents go on calling each other.
        "ignore_global_conn_limit": name != PUBLIC,
        "per_connection_buffer_limit_bytes": 256 * 1024,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            **_connection_manager(name, hold_s, routes or name, mutations or NOBODYS_NAMES),
                            **(manager or {}),
                            **_logging(name, access_log),
                        },
                    }
                ]
            }
        ],
    }


def _connection_manager(name: str, hold_s: float, routes: str, mutations: tuple[Json, ...]) -> Json:
    early = _early_mutation(*mutations)
    nobody = {"address_prefix": "255.255.255.255", "prefix_len": 32}
    return {
        "@type": TYPE_PREFIX + _MANAGER,
        "stat_prefix": name,
        "rds": {"route_config_name": routes, "config_source": ADS},
        "http_filters": [_hold_filter(hold_s), _ROUTER],
        "local_reply_config": _HOLD_FAILED,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "use_remote_address": True,
        # No address is trusted with x-envoy-* headers, which would turn retries and time-outs on and off.
        "internal_address_config": {"cidr_ranges": [nobody]},
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "stream_idle_timeout": STREAM_IDLE,
        "request_headers_timeout": "10s",
        "max_request_headers_kb": 60,
        "common_http_protocol_options": {
            "idle_timeout": "900s",
            "max_headers_count": 100,
            # WSGI can't tell `x_user` from `x-user`: whoever may not send the one could send the other.
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 1000,
            "initial_stream_window_size": 256 * 1024,
            "initial_connection_window_size": 1024 * 1024,
        },
        "http_protocol_options": {},
        "early_header_mutation_extensions": [early],
    }


def _logging(name: str, access_log: str | None) -> Json:
    """A request that is logged has an id, the client's or one of ours."""
    if access_log is None:
        return {"generate_request_id": False}
    return {
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "access_log": [render_access_log(access_log, name)],
    }


def _hold_filter(hold_s: float) -> Json:
    """Off, unless a route turns it on; asks the gateway process, which answers when there is someone to serve."""
    config: dict[str, Any] = {
        "@type": TYPE_PREFIX + "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": GATEWAY_CLUSTER}, "timeout": seconds(hold_s + 5)},
        "status_on_error": {"code": "ServiceUnavailable"},
        # The decision needs no header: what clients send stays in Envoy.
        "allowed_headers": {"patterns": [{"exact": "x-shoal-none"}]},
    }
    return {"name": HOLD_FILTER, "disabled": True, "typed_config": config}


# Where the gateway process is dead, the hold's own answer, which says when to come again, is Envoy's to give.
_HOLD_FAILED: Json = {
    "mappers": [
        {
            "filter": {"response_flag_filter": {"flags": ["UAEX"]}},
            "headers_to_add": [
                {"header": {"key": "retry-after", "value": str(RETRY_AFTER_S)}, "append_action": "ADD_IF_ABSENT"}
            ],
        }
    ]
}


def _early_mutation(*mutations: Json) -> Json:
    """Changes headers before the route is chosen."""
    config = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {"@type": TYPE_PREFIX + config, "mutations": list(mutations)},
    }


# What Shoal and Envoy tell agents they tell under these names, so nobody else may.
NOBODYS_NAMES: tuple[Json, ...] = tuple(
    {"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in ("x-shoal-", "x-envoy-")
)

REMOTE_ADDRESS = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
# Routes can match on headers only, so the address becomes one, whatever the client sends.
TELLS_SOURCE: Json = {
    "append": {
        "header": {"key": SOURCE_HEADER, "value": REMOTE_ADDRESS},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
}

_ROUTER: Json = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": TYPE_PREFIX + "envoy.extensions.filters.http.router.v3.Router"},
}
