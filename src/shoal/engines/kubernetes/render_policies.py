"""Who may speak with whom in a fleet's namespace, as network policies: what is not named here is refused.

Agents are reached by gateways alone, and reach these, DNS, and the brokers that they use; whatever else they call they
reach through the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.render_own import API_PORT, BROKER_PORT, CALLS_PORT, LINK_PORT, PUBLIC_PORT, Own
from shoal.engines.kubernetes.render_pod import USES_BROKER, USES_OUTSIDE, Object
from shoal.spec.model import Fleet

_AGENTS = {"key": names.ROLE, "operator": "In", "values": [Role.REVISION.value, Role.STATEFUL.value, Role.RUN.value]}
_DNS: Object = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
_SCHEMES = {"http": 80, "https": 443, "amqp": 5672, "amqps": 5671}


def render_policies(own: Own, fleet: Fleet) -> list[Object]:
    """All of a fleet."""
    agents = {"matchExpressions": [_AGENTS]}
    gateways, controllers = _role(Role.GATEWAY), _role(Role.CONTROLLER)
    outside = ports_of(external.url for external in fleet.external.values())
    brokers = ports_of(
        url for broker in fleet.brokers.values() for url in (broker.url, broker.management_url) if url is not None
    )
    policies = [
        _policy(own, "shoal-default", {"matchLabels": {names.FLEET: own.fleet}}, [], []),
        _policy(own, "shoal-agents", agents, [_from([gateways])], [_DNS, _to([gateways], CALLS_PORT)]),
        # Who enforces these learns of a new pod's address late, and would refuse its first calls; by that address the
        # gateway knows callers itself, and holds those whom it does not know yet.
        _policy(
            own, "shoal-gateway", gateways,
            [_on(PUBLIC_PORT, CALLS_PORT)],
            [_DNS, _to([agents]), _to([controllers], LINK_PORT, API_PORT), *([_on(*outside)] if outside else [])],
        ),
        # The API server, from where people ask, and which it asks itself, is no pod that could be named.
        _policy(own, "shoal-controller", controllers, [_from([gateways], LINK_PORT), _on(API_PORT)], [{}]),
        _policy(
            own, "shoal-broker", _role(Role.BROKER),
            [_from([{"matchLabels": {USES_BROKER: "1"}}, controllers], BROKER_PORT)], [],
        ),
        _policy(own, "shoal-uses-broker", {"matchLabels": {USES_BROKER: "1"}}, None,
                [_to([_role(Role.BROKER)], BROKER_PORT)]),
    ]  # fmt: skip
    if brokers:
        policies.append(_policy(own, "shoal-uses-outside", {"matchLabels": {USES_OUTSIDE: "1"}}, None, [_on(*brokers)]))
    return policies


def ports_of(urls: Iterable[str]) -> list[int]:
    """The ports that URLs lead to."""
    found = (urlsplit(url) for url in urls)
    return sorted({parts.port or _SCHEMES.get(parts.scheme, 443) for parts in found})


def _role(role: Role) -> Object:
    return {"matchLabels": {names.ROLE: role.value}}


def _from(who: Sequence[Mapping[str, object]], *ports: int) -> Object:
    return {"from": [{"podSelector": dict(each)} for each in who], **_on(*ports)}


def _to(whom: Sequence[Mapping[str, object]], *ports: int) -> Object:
    return {"to": [{"podSelector": dict(each)} for each in whom], **_on(*ports)}


def _on(*ports: int) -> Object:
    return {"ports": [{"port": port} for port in ports]} if ports else {}


def _policy(own: Own, name: str, of: Object, ingress: Sequence[Object] | None, egress: Sequence[Object]) -> Object:
    """Without `ingress` it says nothing of that."""
    rules: Object = {"podSelector": of, "policyTypes": ["Egress"], "egress": list(egress)}
    if ingress is not None:
        rules |= {"policyTypes": ["Ingress", "Egress"], "ingress": list(ingress)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": fleet_labels(own.fleet, Role.FLEET)},
        "spec": rules,
    }
