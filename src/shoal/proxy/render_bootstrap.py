"""How Envoy starts: nothing but where the gateway process is, and which statistics are kept."""

from __future__ import annotations

from shoal.core.routing import LATENCY_BOUNDS_MS
from shoal.proxy.limits import Limits
from shoal.proxy.messages import TYPE_PREFIX, Json
from shoal.proxy.render_listeners import GATEWAY_CLUSTER

FLUSH_S = 1.0  # Envoy merges its threads' histograms at this interval: a scrape sees nothing newer
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECTIONS = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
_HEAP = "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"
_HEAP_MONITOR = "envoy.resource_monitors.fixed_heap"

# What is not named here is not counted at all, which is what keeps a request, and a scrape, cheap.
COUNTED = r"^cluster\.agent-[^.]+\.(upstream_rq_(active|pending_active|completed|5xx|time)|membership_healthy)$"


def render_bootstrap(node: str, gateway_socket: str, admin_socket: str, limits: Limits) -> Json:
    return {
        "node": {"id": node, "cluster": "shoal"},
        "admin": {
            "address": {"pipe": {"path": admin_socket, "mode": 0o600}},
            "ignore_global_conn_limit": True,  # a flood of clients must not blind the gateway process
        },
        "dynamic_resources": {
            "lds_config": {"resource_api_version": "V3", "ads": {}},
            "cds_config": {"resource_api_version": "V3", "ads": {}},
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": GATEWAY_CLUSTER, "retry_policy": _RECONNECT}}],
            },
        },
        "static_resources": {"clusters": [_gateway_cluster(gateway_socket)]},
        "stats_flush_interval": f"{FLUSH_S:g}s",
        "stats_config": {
            "stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": COUNTED}}]}},
            "histogram_bucket_settings": [
                {"match": {"suffix": "upstream_rq_time"}, "buckets": list(LATENCY_BOUNDS_MS)},
            ],
        },
        "overload_manager": _overload(limits),
    }


def _overload(limits: Limits) -> Json:
    """Connections above the limit are closed at once. As the heap fills, idle connections go sooner; before its end new
    requests are answered 503, and those that run go on."""
    connections = {"@type": TYPE_PREFIX + _CONNECTIONS, "max_active_downstream_connections": limits.connections}
    heap = {"@type": TYPE_PREFIX + _HEAP, "max_heap_size_bytes": limits.heap_bytes}
    timeouts = {
        "@type": TYPE_PREFIX + "envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
        "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}],
    }
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": connections},
            {"name": _HEAP_MONITOR, "typed_config": heap},
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [
                    {"name": _HEAP_MONITOR, "scaled": {"scaling_threshold": 0.7, "saturation_threshold": 0.9}}
                ],
                "typed_config": timeouts,
            },
            {"name": "envoy.overload_actions.shrink_heap", "triggers": [_heap_above(0.85)]},
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": [_heap_above(0.95)]},
        ],
    }


def _heap_above(share: float) -> Json:
    return {"name": _HEAP_MONITOR, "threshold": {"value": share}}


# Envoy's own back-off takes seconds to find a gateway process that was restarted.
_RECONNECT: Json = {"retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"}}


def _gateway_cluster(path: str) -> Json:
    many = {"max_connections": 100_000, "max_requests": 100_000, "max_pending_requests": 100_000}
    keepalive = {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
    return {
        "name": GATEWAY_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": GATEWAY_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": path}}}}]}],
        },
        "circuit_breakers": {"thresholds": [many]},  # held requests wait here
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": TYPE_PREFIX + _HTTP_OPTIONS,
                "explicit_http_config": {"http2_protocol_options": keepalive},
            }
        },
    }
