"""Rendering is pure: resources are asserted as values, and every message is one that Envoy's schema knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.routing import AgentRoute, Caller, Endpoint, ExternalRoute, HealthCheck, Snapshot
from shoal.errors import GatewayError
from shoal.proxy.messages import ASSIGNMENT, CLUSTER, LISTENER, ROUTES, Encoder
from shoal.proxy.render import Renderer, Resources
from shoal.proxy.render_clusters import share

CHECK = HealthCheck("/healthz", 2.0, 1.5, 3)
ONE = Endpoint("r1", "10.0.0.1", 8000)
TWO = Endpoint("r2", "10.0.0.2", 8000, weight=3)


def route(name: str = "a", **more: Any) -> AgentRoute:
    return replace(AgentRoute(name, "http", CHECK, (ONE,), public_path=f"/{name}"), **more)


def snapshot(*agents: AgentRoute, **more: Any) -> Snapshot:
    return Snapshot("f", "127.0.0.1", 8080, agents={agent.agent: agent for agent in agents}, **more)


def render(*agents: AgentRoute, **more: Any) -> Resources:
    return Renderer(ca_file="/ca.pem").render(snapshot(*agents, **more))


def public_routes(resources: Resources, host: str = "*") -> list[Any]:
    hosts = resources.routes["public"]["virtual_hosts"]
    return next(one["routes"] for one in hosts if one["domains"] == [host])


def walk(value: Any, key: str) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, part in value.items():
            if name == key:
                yield part
            yield from walk(part, key)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from walk(part, key)


def test_an_agents_cluster() -> None:
    """What keeps a removed replica from traffic, a new one from waiting, and a dead one from failing requests."""
    cluster = render(route()).clusters["agent-a"]
    assert cluster["ignore_health_on_host_removal"] is True
    assert cluster["common_lb_config"] == {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"}
    assert cluster["health_checks"] == [
        {
            "timeout": "1.5s",
            "interval": "2s",
            "no_traffic_interval": "0.1s",
            "no_traffic_healthy_interval": "2s",
            "unhealthy_interval": "0.1s",
            "unhealthy_edge_interval": "0.1s",
            "healthy_threshold": 1,
            "unhealthy_threshold": 3,
            "http_health_check": {"path": "/healthz", "codec_client_type": "HTTP1"},
        }
    ]
    tcp = render(route(health=replace(CHECK, path=None))).clusters["agent-a"]
    assert tcp["health_checks"][0]["tcp_health_check"] == {}


def test_endpoints_are_sent_apart_from_the_cluster() -> None:
    assignment = render(route(endpoints=(ONE, TWO))).assignments["agent-a"]
    address = {"socket_address": {"address": "10.0.0.2", "port_value": 8000}}
    assert assignment["endpoints"][0]["lb_endpoints"][1] == {
        "endpoint": {"address": address, "hostname": "r2"},
        "load_balancing_weight": 3,
    }


@pytest.mark.parametrize(
    ("limit", "gateways", "expected"), [(10, 1, 10), (10, 3, 3), (2, 5, 1), (None, 3, 1_000_000), (4, 0, 4)]
)
def test_a_fleet_wide_limit_is_shared(limit: int | None, gateways: int, expected: int) -> None:
    assert share(limit, gateways) == expected
    cluster = render(route(max_requests=limit), gateways=gateways).clusters["agent-a"]
    assert cluster["circuit_breakers"]["thresholds"][0]["max_requests"] == expected


def test_only_declared_methods_are_repeated_after_a_reset_or_503() -> None:
    (safe, exact, _) = public_routes(render(route()))
    assert (safe["match"], exact["match"]) == ({"prefix": "/a/"}, {"path": "/a"})
    assert safe["route"]["retry_policy"]["retry_on"] == "connect-failure,refused-stream,reset-before-request"
    (repeatable, safe, _, _, _) = public_routes(render(route(retry_methods=("PUT", "get"))))
    header = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|PUT"}}}
    assert repeatable["match"] == {"prefix": "/a/", "headers": [header]}
    assert repeatable["route"]["retry_policy"]["retriable_status_codes"] == [503]
    assert "retriable_status_codes" not in safe["route"]["retry_policy"]


@pytest.mark.parametrize("more", [{"public_path": "/"}, {"strip_path": False}])
def test_a_clients_own_prefix_header_does_not_pass(more: dict[str, Any]) -> None:
    (only, *_) = public_routes(render(route(**more)))
    assert only["request_headers_to_remove"] == ["x-forwarded-prefix"]


def test_streams_have_no_timeout_but_an_idle_one() -> None:
    (first, *_) = public_routes(render(route()))
    assert (first["route"]["timeout"], first["route"]["idle_timeout"]) == ("0s", "300s")
    (limited, *_) = public_routes(render(route(request_timeout_s=2.5)))
    assert limited["route"]["timeout"] == "2.5s"


def test_no_cookie_is_minted() -> None:
    resources = render(route(sticky_header="x-user", sticky_cookie="sid"))
    (first, *_) = public_routes(resources)
    header = {"header": {"header_name": "x-user"}, "terminal": True}
    assert first["route"]["hash_policy"] == [header, {"cookie": {"name": "sid"}, "terminal": True}]
    assert resources.clusters["agent-a"]["lb_policy"] == "RING_HASH"


def test_the_longest_path_comes_first_and_the_rest_is_404() -> None:
    routes = public_routes(render(route("a", public_path="/"), route("b", public_path="/a/b"), route("c")))
    assert [one["match"].get("prefix") for one in routes] == ["/a/b/", None, "/c/", None, "/", "/"]
    assert routes[-1]["direct_response"]["status"] == 404


def test_a_host_has_routes_of_its_own() -> None:
    resources = render(route("a", public_path=None, public_host="a.test"), route("b", public_path=None))
    assert len(public_routes(resources, "a.test")) == 2
    assert len(public_routes(resources)) == 1  # b is not public


def test_the_hold_is_on_only_where_it_is_set() -> None:
    (held, *_) = public_routes(render(route(hold=True)))
    settings = held["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"]
    assert settings == {"context_extensions": {"agent": "a"}}
    assert "typed_per_filter_config" not in public_routes(render(route()))[0]


def test_a_change_of_one_agent_renders_one_agent() -> None:
    renderer = Renderer()
    a, b = route("a"), route("b")
    before = renderer.render(snapshot(a, b))
    after = renderer.render(snapshot(replace(a, endpoints=(ONE, TWO)), b))
    assert after.assignments["agent-a"] != before.assignments["agent-a"]
    for kind, name in (("clusters", "agent-a"), ("clusters", "agent-b"), ("assignments", "agent-b")):
        assert getattr(after, kind)[name] is getattr(before, kind)[name]
    assert after.listeners["public"] is before.listeners["public"]
    assert after.routes["public"] is before.routes["public"]


def test_an_external_is_verified_and_sees_its_own_name() -> None:
    external = ExternalRoute("openai", "api.openai.com", 443, tls=True, base_path="/v1/", max_requests=50)
    caller = Caller("a", ("openai",), listener_port=9000)
    resources = render(route(), externals={"openai": external}, callers={"a": caller}, gateways=2)
    cluster = resources.clusters["external-openai"]
    tls = cluster["transport_socket"]["typed_config"]
    assert tls["sni"] == "api.openai.com"
    assert tls["common_tls_context"]["validation_context"] == {
        "trusted_ca": {"filename": "/ca.pem"},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "api.openai.com"}}],
    }
    assert cluster["circuit_breakers"]["thresholds"][0]["max_requests"] == 25
    by_path = resources.routes["caller-a"]["virtual_hosts"][0]["routes"][1]
    assert by_path["match"] == {"prefix": "/openai/"}
    assert by_path["route"]["host_rewrite_literal"] == "api.openai.com"
    assert by_path["route"]["prefix_rewrite"] == "/v1/"


def test_callers_get_what_they_declare_and_403_for_the_rest() -> None:
    callers = {"a": Caller("a", ("b", "later"), listener_port=9000)}
    resources = render(route("a"), route("b"), callers=callers)
    routes = resources.routes["caller-a"]["virtual_hosts"][0]["routes"]
    assert [one.get("direct_response", {}).get("status") for one in routes] == [None, None, None, 503, 503, 403]
    assert resources.listeners["caller-a"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_a_caller_that_comes_changes_no_listener() -> None:
    """A changed listener would cut connections."""
    renderer = Renderer()
    known = {"a": Caller("a", ("b",), addresses=("10.0.1.1",))}
    before = renderer.render(snapshot(route("b"), callers=known, internal_port=9000))
    more = {"a": Caller("a", ("b",), addresses=("10.0.1.1", "10.0.1.2"))}
    after = renderer.render(snapshot(route("b"), callers=more, internal_port=9000))
    assert after.listeners["internal"] is before.listeners["internal"]
    (table,) = walk(dict(after.routes["internal"]), "exact_match_map")
    assert set(table["map"]) == {"10.0.1.1", "10.0.1.2"}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (snapshot(route(endpoints=(Endpoint("r", "localhost", 1),))), "expected an IP address"),
        (snapshot(route(endpoints=(Endpoint("r", "10.0.0.1", 1, weight=0),))), "weight 0"),
        (snapshot(callers={"a": Caller("a", (), 8080)}), "two listeners want port 8080"),
        (snapshot(callers={"a": Caller("a", (), None, ("host",))}), "expected an IP address"),
        (snapshot(externals={"x": ExternalRoute("x", "x.test", 443, tls=True)}), "certificate authorities"),
        (
            snapshot(route("x"), externals={"x": ExternalRoute("x", "h", 80, tls=False)}),
            "both an agent and an external",
        ),
        (Snapshot("f", "127.0.0.1", 1, agents={"b": route("a")}), "agent a is listed as b"),
    ],
)
def test_what_envoy_can_not_use_is_refused_here(bad: Snapshot, words: str) -> None:
    with pytest.raises(GatewayError, match=words):
        Renderer().render(bad)


NAMES = st.sampled_from(["a", "b", "c-d", "e1"])
ROUTES_OF = st.builds(
    AgentRoute,
    agent=NAMES,
    protocol=st.sampled_from(["http", "grpc"]),
    health=st.builds(HealthCheck, st.sampled_from([None, "/h"]), st.just(1.0), st.just(0.5), st.integers(1, 3)),
    endpoints=st.lists(st.sampled_from([ONE, TWO]), unique=True).map(tuple),
    public_path=st.sampled_from([None, "/", "/p", "/p/q/", "/with.dots+(x)"]),
    public_host=st.sampled_from([None, "h.test"]),
    strip_path=st.booleans(),
    retry_methods=st.sampled_from([(), ("GET",)]),
    sticky_header=st.sampled_from([None, "x-k"]),
    sticky_cookie=st.sampled_from([None, "k"]),
    max_requests=st.one_of(st.none(), st.integers(1, 100)),
    request_timeout_s=st.one_of(st.none(), st.floats(0.001, 1000)),
    hold=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROUTES_OF, max_size=4), st.lists(NAMES, max_size=4), st.booleans(), st.integers(0, 5))
def test_every_cluster_that_a_route_names_exists(
    agents: list[AgentRoute], calls: list[str], by_port: bool, gateways: int
) -> None:
    """Envoy would accept a route to nowhere and answer 503; and every rendered value is a valid message."""
    caller = Caller("a", tuple(calls), 9000 if by_port else None, ("10.0.0.9",))
    resources = render(*agents, callers={"a": caller}, gateways=gateways, internal_port=9001)
    named = {name for configuration in resources.routes.values() for name in walk(dict(configuration), "cluster")}
    assert named <= set(resources.clusters)
    assert set(resources.assignments) == {f"agent-{agent.agent}" for agent in agents}
    encoder = Encoder()
    kinds = (
        (CLUSTER, resources.clusters),
        (ASSIGNMENT, resources.assignments),
        (LISTENER, resources.listeners),
        (ROUTES, resources.routes),
    )
    for type_url, values in kinds:
        first = encoder.encode_all(type_url, values)
        again = encoder.encode_all(type_url, values)
        assert all(again[name] is body for name, body in first.items())
