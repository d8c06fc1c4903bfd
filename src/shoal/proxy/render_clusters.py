"""Agents and externals as Envoy clusters: where requests go, how replicas are checked, chosen, and given up on."""

from __future__ import annotations

import ipaddress
from typing import Any

from shoal.core.routing import AgentRoute, Endpoint, ExternalRoute, HealthCheck
from shoal.proxy.messages import TYPE_PREFIX, Json

# Below the keep-alive of every common server (gunicorn's 2 s is the least), so that Envoy never writes on a connection
# that the server is about to close.
UPSTREAM_IDLE = "1.5s"
# A replica that is not up yet is looked at this often: it bounds what the check adds to a start.
STARTING_INTERVAL_S = 0.1
UNLIMITED = 1_000_000

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
ADS: Json = {"ads": {}, "resource_api_version": "V3"}


# A machine that is gone says nothing: a connection is dead whose peer's kernel has not acknowledged anything for so
# long, data or a probe of its being there. However long an answer takes does not matter.
_LOST_S = 4
_LOST_PEERS: Json = {
    "upstream_connection_options": {
        "tcp_keepalive": {"keepalive_time": 2, "keepalive_interval": 1, "keepalive_probes": 2}
    },
    "upstream_bind_config": {
        "socket_options": [{"description": "TCP_USER_TIMEOUT", "level": 6, "name": 18, "int_value": _LOST_S * 1000}]
    },
}


def agent_cluster(agent: str) -> str:
    """The cluster's name, by which statistics come back, too."""
    return f"agent-{agent}"


def external_cluster(external: str) -> str:
    return f"external-{external}"


def share(limit: int | None, gateways: int) -> int:
    """This gateway's part of a fleet-wide limit: at least one, and together no more than the limit where it allows."""
    return UNLIMITED if limit is None else max(1, limit // max(1, gateways))


def seconds(value: float) -> str:
    """A duration as protobuf's JSON form has it."""
    return f"{value:.6f}".rstrip("0").rstrip(".") + "s"


def render_agent_cluster(route: AgentRoute, gateways: int) -> Json:
    return {
        "name": agent_cluster(route.agent),
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS},
        "connect_timeout": "1s",
        # Where every replica fails its check, all are asked as if none did: on a machine that is too busy all are slow
        # at once, and to refuse what they would answer late helps nobody. With one that is well the others get nothing.
        # Without a merge window of 0, Envoy's threads would hear of one that became healthy only a second later.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"},
        "ignore_health_on_host_removal": True,
        "health_checks": [_health_check(route.health, h2=route.protocol == "grpc")],
        "outlier_detection": _OUTLIERS,
        "circuit_breakers": _breakers(share(route.max_requests, gateways)),
        "typed_extension_protocol_options": {_HTTP_OPTIONS: _agent_protocol(route.protocol)},
        **_LOST_PEERS,
        **_balancing(route),
    }


def render_assignment(route: AgentRoute) -> Json:
    return {
        "cluster_name": agent_cluster(route.agent),
        "endpoints": [{"lb_endpoints": [_endpoint(endpoint) for endpoint in route.endpoints]}],
    }


def render_external_cluster(external: ExternalRoute, gateways: int, ca_file: str | None) -> Json:
    address = {"socket_address": {"address": external.host, "port_value": external.port}}
    name = external_cluster(external.name)
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC" if is_ip(external.host) else "LOGICAL_DNS",
        "connect_timeout": "5s",
        "dns_lookup_family": "V4_PREFERRED",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "circuit_breakers": _breakers(share(external.max_requests, gateways)),
        "typed_extension_protocol_options": {_HTTP_OPTIONS: _external_protocol(tls=external.tls)},
    }
    if external.tls:
        cluster["transport_socket"] = _tls(external, ca_file)
    return cluster


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _endpoint(endpoint: Endpoint) -> Json:
    address = {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}
    # The name is only for the access log.
    known = {"endpoint": {"address": address, "hostname": endpoint.replica}, "load_balancing_weight": endpoint.weight}
    if not endpoint.identity:
        return known
    # Its place on the ring: a successor at another address takes over the same keys.
    return {**known, "metadata": {"filter_metadata": {"envoy.lb": {"hash_key": endpoint.identity}}}}


_CHOICES = 5  # of random replicas, with repetition: one that is idle alone among three is found in 87 of 100


def _balancing(route: AgentRoute) -> Json:
    if route.sticky_header or route.sticky_cookie:
        return {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 1024}}
    # Two random choices of three replicas often find a busy one, and requests of agents are long. A full scan would
    # find the idlest, which just after its death is the dead one, for each of a request's retries anew: what retries
    # need is a choice that may come out another way.
    policy = {
        "@type": TYPE_PREFIX + "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        "choice_count": _CHOICES,
    }
    extension = {"name": "envoy.load_balancing_policies.least_request", "typed_config": policy}
    return {"load_balancing_policy": {"policies": [{"typed_extension_config": extension}]}}


def _health_check(check: HealthCheck, *, h2: bool) -> Json:
    interval = seconds(check.interval_s)
    starting = seconds(min(check.interval_s, STARTING_INTERVAL_S))
    probe: Json = {"tcp_health_check": {}}
    if check.path is not None:
        http = {"path": check.path, "codec_client_type": "HTTP2" if h2 else "HTTP1"}
        probe = {"http_health_check": http}
    return {
        "timeout": seconds(check.timeout_s),
        "interval": interval,
        # Envoy's own default is a minute for a cluster that has had no request.
        "no_traffic_interval": starting,
        "no_traffic_healthy_interval": interval,
        "unhealthy_interval": starting,
        "unhealthy_edge_interval": starting,
        "healthy_threshold": 1,
        "unhealthy_threshold": check.retries,
        **probe,
    }


# A replica that answers 5xx or not at all rests for a while; never all of them.
_OUTLIERS: Json = {
    "consecutive_5xx": 5,
    "consecutive_gateway_failure": 5,
    "enforcing_consecutive_gateway_failure": 100,
    "enforcing_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "5s",
    "max_ejection_time": "30s",
    "max_ejection_percent": 50,
}


def _breakers(max_requests: int) -> Json:
    threshold: dict[str, Any] = {
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": max_requests,
        # Envoy's own default of three retries at a time discards most of them just when a replica dies.
        "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 100},
    }
    return {"thresholds": [threshold]}


def _agent_protocol(protocol: str) -> Json:
    # A channel of gRPC is meant to stay; an HTTP/1.1 connection must not outlive the server's keep-alive.
    if protocol == "grpc":
        chosen: Json = {"http2_protocol_options": {}}
        idle = "3600s"
    else:
        chosen = {"http_protocol_options": {}}
        idle = UPSTREAM_IDLE
    return {
        "@type": TYPE_PREFIX + _HTTP_OPTIONS,
        "common_http_protocol_options": {"idle_timeout": idle},
        "explicit_http_config": chosen,
    }


def _external_protocol(*, tls: bool) -> Json:
    options: Json = {"http_protocol_options": {}}
    protocol: Json = {"explicit_http_config": options}
    if tls:
        protocol = {"auto_config": {**options, "http2_protocol_options": {}}}
    return {
        "@type": TYPE_PREFIX + _HTTP_OPTIONS,
        "common_http_protocol_options": {"idle_timeout": "30s"},
        **protocol,
    }


def _tls(external: ExternalRoute, ca_file: str | None) -> Json:
    name_type = "IP_ADDRESS" if is_ip(external.host) else "DNS"
    validation: dict[str, Any] = {
        "trusted_ca": {"filename": ca_file},
        "match_typed_subject_alt_names": [{"san_type": name_type, "matcher": {"exact": external.host}}],
    }
    context: dict[str, Any] = {
        "@type": TYPE_PREFIX + _TLS,
        "common_tls_context": {"validation_context": validation},
    }
    if name_type == "DNS":
        context["sni"] = external.host
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
