"""What NetworkPolicies let through, and the nftables they become: as values."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.kubernetes.network_policies import Allowed, Cluster, matches
from testbed.kubernetes.nft_rules import render
from testbed.kubernetes.policies import isolated_on

Object = dict[str, Any]


def pod(name: str, ip: str, *, namespace: str = "shop", node: str = "n1", ports: Any = (), **labels: str) -> Object:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "ports": list(ports)}]},
        "status": {"podIP": ip, "phase": "Running"},
    }


def policy(selector: Object, *, namespace: str = "shop", **spec: Any) -> Object:
    types = [direction for direction in ("Ingress", "Egress") if direction.lower() in spec]
    return {"metadata": {"namespace": namespace}, "spec": {"podSelector": selector, "policyTypes": types, **spec}}


def app(name: str) -> Object:
    return {"matchLabels": {"app": name}}


WEB = pod("web-0", "10.0.1.1", app="web", ports=[{"name": "http", "containerPort": 8000}])
API = pod("api-0", "10.0.1.2", app="api", ports=[{"name": "http", "containerPort": 9000}])
OTHER = pod("api-1", "10.0.2.1", node="n2", app="api", ports=[{"name": "http", "containerPort": 9001}])
GUEST = pod("web-9", "10.0.2.2", node="n2", namespace="guests", app="web")
NAMESPACES = [{"metadata": {"name": "shop"}}, {"metadata": {"name": "guests", "labels": {"team": "blue"}}}]


def allowed(ruled: Object, direction: Any, *policies: Object) -> set[Allowed] | None:
    found = Cluster.of(policies, [WEB, API, OTHER, GUEST], NAMESPACES).allowed(ruled, direction)
    return None if found is None else set(found)


def test_a_pod_that_no_policy_is_for_is_free() -> None:
    """Not of its labels, its namespace, or its direction."""
    others = [policy(app("api"), ingress=[]), policy({}, namespace="guests", ingress=[]), policy({}, egress=[])]
    assert allowed(WEB, "Ingress", *others) is None
    assert allowed(WEB, "Egress", *others) == set()


def test_policies_add_up() -> None:
    """A denial of everything takes nothing from what another one allows; an empty rule allows all."""
    deny = policy({}, ingress=[])
    assert allowed(WEB, "Ingress", deny) == set()
    one = policy(app("web"), ingress=[{"from": [{"podSelector": app("api")}]}])
    assert allowed(WEB, "Ingress", deny, one) == {Allowed(frozenset({"10.0.1.2", "10.0.2.1"}))}
    assert allowed(WEB, "Ingress", deny, policy({}, ingress=[{}])) == {Allowed()}


@pytest.mark.parametrize(
    ("peer", "addresses"),
    [
        ({"podSelector": {}}, {"10.0.1.1", "10.0.1.2", "10.0.2.1"}),
        ({"podSelector": app("web")}, {"10.0.1.1"}),
        ({"namespaceSelector": {}}, {"10.0.1.1", "10.0.1.2", "10.0.2.1", "10.0.2.2"}),
        ({"namespaceSelector": {"matchLabels": {"team": "blue"}}}, {"10.0.2.2"}),
        ({"namespaceSelector": {}, "podSelector": app("web")}, {"10.0.1.1", "10.0.2.2"}),
        ({"namespaceSelector": {"matchLabels": {"team": "red"}}}, set[str]()),
        ({"ipBlock": {"cidr": "10.9.0.0/30"}}, {"10.9.0.0/30"}),
        ({"ipBlock": {"cidr": "10.9.0.0/30", "except": ["10.9.0.1/32"]}}, {"10.9.0.0/32", "10.9.0.2/31"}),
        ({"ipBlock": {"cidr": "10.9.0.0/30", "except": ["10.9.0.0/24"]}}, set[str]()),
        ({"ipBlock": {"cidr": "fd00::/8"}}, set[str]()),
    ],
)
@pytest.mark.parametrize("direction", ["Ingress", "Egress"])
def test_peers(peer: Object, addresses: set[str], direction: str) -> None:
    """Pods alone are of the policy's own namespace; a block is without its exceptions."""
    side = "from" if direction == "Ingress" else "to"
    rules: Any = {direction.lower(): [{side: [peer]}]}
    ruled = policy({}, **rules)
    assert allowed(WEB, direction, ruled) == {Allowed(frozenset(addresses))}


def test_ports_by_number_range_and_protocol() -> None:
    ports = [
        {"protocol": "TCP", "port": 80},
        {"protocol": "UDP", "port": 5000, "endPort": 5010},
        {"protocol": "SCTP"},
    ]
    assert allowed(WEB, "Ingress", policy({}, ingress=[{"ports": ports}])) == {
        Allowed(None, "TCP", 80, 80),
        Allowed(None, "UDP", 5000, 5010),
        Allowed(None, "SCTP"),
    }


def test_a_named_port_is_of_the_pod_that_is_reached() -> None:
    """Its own, for what comes in; for what goes out, each peer's, and nobody's where no pod has that name."""
    named = [{"protocol": "TCP", "port": "http"}]
    incoming = policy({}, ingress=[{"ports": named}])
    assert allowed(WEB, "Ingress", incoming) == {Allowed(None, "TCP", 8000, 8000)}
    assert allowed(GUEST, "Ingress", policy({}, namespace="guests", ingress=[{"ports": named}])) == set()
    outgoing = policy({}, egress=[{"to": [{"podSelector": app("api")}], "ports": named}])
    assert allowed(WEB, "Egress", outgoing) == {
        Allowed(frozenset({"10.0.1.2"}), "TCP", 9000, 9000),
        Allowed(frozenset({"10.0.2.1"}), "TCP", 9001, 9001),
    }


@pytest.mark.parametrize(
    ("operator", "values", "holds"),
    [
        ("In", ["a", "b"], (True, False, False)),
        ("NotIn", ["a", "b"], (False, True, True)),
        ("Exists", None, (True, True, False)),
        ("DoesNotExist", None, (False, False, True)),
    ],
)
def test_selectors(operator: str, values: list[str] | None, holds: tuple[bool, ...]) -> None:
    """Of one label that is in the values, is another, is missing."""
    selector = {"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}
    assert tuple(matches(selector, labels) for labels in ({"k": "a"}, {"k": "c"}, {})) == holds


def test_who_has_no_address_of_its_own_is_no_pod_here() -> None:
    """Of an ended pod another may have it by now; a node's is not a pod's."""
    ended = {**API, "status": {"podIP": "10.0.1.2", "phase": "Succeeded"}}
    on_host = {**API, "spec": {**API["spec"], "hostNetwork": True}}
    waiting = {**API, "status": {"phase": "Pending"}}
    assert Cluster.of([], [ended, on_host, waiting, WEB], []).pods == (WEB,)


def test_rules_are_of_the_nodes_own_pods() -> None:
    cluster = Cluster.of([policy({}, ingress=[])], [WEB, OTHER, GUEST], NAMESPACES)
    assert isolated_on(cluster, "n1") == {("10.0.1.1", "Ingress"): frozenset()}
    assert isolated_on(cluster, "n2") == {("10.0.2.1", "Ingress"): frozenset()}


def test_the_table_without_a_policy_lets_all_through() -> None:
    assert render({}) == (
        "table ip shoal_policies\n"
        "delete table ip shoal_policies\n"
        "table ip shoal_policies {\n"
        "  chain forward {\n"
        "    type filter hook forward priority filter; policy accept;\n"
        "    ct state established,related accept\n"
        "  }\n"
        "}\n"
    )


def test_the_table_of_a_pod() -> None:
    """What may leave it may still be kept out by another's chain: `return`. Peers who are nobody pass nothing."""
    peers = frozenset({"10.0.2.1", "10.0.1.2", "10.9.0.0/30"})
    incoming = [Allowed(peers, "TCP", 80, 80), Allowed(peers, "UDP", 5, 9), Allowed(frozenset())]
    text = render({("10.0.1.1", "Egress"): [Allowed(None, "SCTP")], ("10.0.1.1", "Ingress"): incoming})
    assert text.splitlines()[3:] == [
        "  set peers0 { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.1.2, 10.0.2.1, 10.9.0.0/30 }; }",
        "  chain out_10_0_1_1 {",
        "    ip protocol sctp return",
        "    reject with icmp admin-prohibited",
        "  }",
        "  chain in_10_0_1_1 {",
        "    ip saddr @peers0 tcp dport 80 return",
        "    ip saddr @peers0 udp dport 5-9 return",
        "    reject with icmp admin-prohibited",
        "  }",
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        "    ct state established,related accept",
        "    ip saddr vmap { 10.0.1.1 : jump out_10_0_1_1 }",
        "    ip daddr vmap { 10.0.1.1 : jump in_10_0_1_1 }",
        "  }",
        "}",
    ]
