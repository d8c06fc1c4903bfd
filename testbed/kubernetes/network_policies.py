"""What NetworkPolicies let through to and from each pod, as Kubernetes has it: values in, values out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from testbed.kubernetes.api import Object

Direction = Literal["Ingress", "Egress"]
_PEERS_OF: dict[Direction, str] = {"Ingress": "from", "Egress": "to"}


@dataclass(frozen=True)
class Allowed:
    """What may pass: to or from these addresses (None: any), on these ports of a protocol (None: any)."""

    peers: frozenset[str] | None = None
    protocol: str | None = None
    first_port: int | None = None
    last_port: int | None = None


@dataclass(frozen=True)
class Cluster:
    """What there is: the objects as the API has them."""

    policies: tuple[Object, ...]
    pods: tuple[Object, ...]
    namespaces: Mapping[str, Mapping[str, str]]  # their labels

    @staticmethod
    def of(policies: Iterable[Object], pods: Iterable[Object], namespaces: Iterable[Object]) -> Cluster:
        """Pods without an address of their own are left out: policies are not for them."""
        labels = {each["metadata"]["name"]: _labels(each) for each in namespaces}
        return Cluster(tuple(policies), tuple(each for each in pods if _has_own_address(each)), labels)

    def pods_on(self, node: str) -> list[Object]:
        return [pod for pod in self.pods if pod["spec"].get("nodeName") == node]

    def allowed(self, pod: Object, direction: Direction) -> frozenset[Allowed] | None:
        """None where no policy is for the pod in this direction: all may pass."""
        ours = [policy for policy in self.policies if _is_for(policy, pod, direction)]
        if not ours:
            return None
        rules = [(policy, rule) for policy in ours for rule in policy["spec"].get(direction.lower()) or ()]
        return frozenset(each for policy, rule in rules for each in self._of_rule(policy, rule, pod, direction))

    def _of_rule(self, policy: Object, rule: Object, pod: Object, direction: Direction) -> Iterable[Allowed]:
        peers = rule.get(_PEERS_OF[direction])
        selected = [each for peer in peers or () for each in self._pods_of(peer, policy)] if peers else list(self.pods)
        blocks = frozenset(block for peer in peers or () for block in _blocks_of(peer))
        addresses = None if not peers else frozenset(map(address_of, selected)) | blocks
        for port in rule.get("ports") or ({"protocol": None},):
            yield from _on_port(port, addresses, [pod] if direction == "Ingress" else selected, direction)

    def _pods_of(self, peer: Object, policy: Object) -> list[Object]:
        if "ipBlock" in peer:
            return []
        home = policy["metadata"]["namespace"]
        spaces = {home}
        if (selector := peer.get("namespaceSelector")) is not None:
            spaces = {name for name, labels in self.namespaces.items() if matches(selector, labels)}
        return [
            pod
            for pod in self.pods
            if pod["metadata"]["namespace"] in spaces and matches(peer.get("podSelector") or {}, _labels(pod))
        ]


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """As a LabelSelector; an empty one is for everything."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(each, labels) for each in selector.get("matchExpressions") or ()
    )


def address_of(pod: Object) -> str:
    return pod["status"]["podIP"]


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _is_for(policy: Object, pod: Object, direction: Direction) -> bool:
    spec = policy["spec"]
    same_space = policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return same_space and direction in spec["policyTypes"] and matches(spec.get("podSelector") or {}, _labels(pod))


def _on_port(
    port: Mapping[str, Any], addresses: frozenset[str] | None, targets: Iterable[Object], direction: Direction
) -> Iterable[Allowed]:
    """A port's name is of the pod that is reached: to each of them it may be another number."""
    protocol, number = port["protocol"], port.get("port")
    if number is None:
        yield Allowed(addresses, protocol)
    elif isinstance(number, int):
        yield Allowed(addresses, protocol, number, port.get("endPort", number))
    else:
        for target in targets:
            for found in _numbers_of(target, number, protocol):
                reached = addresses if direction == "Ingress" else frozenset({address_of(target)})
                yield Allowed(reached, protocol, found, found)


def _numbers_of(pod: Object, name: str, protocol: str) -> list[int]:
    spec = pod["spec"]
    side = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    ports = [port for container in (*spec["containers"], *side) for port in container.get("ports") or ()]
    named = (port for port in ports if port.get("name") == name and port.get("protocol", "TCP") == protocol)
    return [port["containerPort"] for port in named]


def _blocks_of(peer: Mapping[str, Any]) -> frozenset[str]:
    """The block without its exceptions, as networks that don't overlap; those of IPv6 are not this bed's."""
    if (block := peer.get("ipBlock")) is None or ":" in block["cidr"]:
        return frozenset()
    left = [ipaddress.IPv4Network(block["cidr"], strict=False)]
    for text in block.get("except") or ():
        hole = ipaddress.IPv4Network(text, strict=False)
        left = [part for network in left for part in _without(network, hole)]
    return frozenset(map(str, left))


def _without(network: ipaddress.IPv4Network, hole: ipaddress.IPv4Network) -> list[ipaddress.IPv4Network]:
    if network.subnet_of(hole):
        return []
    return list(network.address_exclude(hole)) if hole.subnet_of(network) else [network]


def _has_own_address(pod: Object) -> bool:
    ended = pod["status"].get("phase") in ("Succeeded", "Failed")
    return not ended and bool(pod["status"].get("podIP")) and not pod["spec"].get("hostNetwork")


def _labels(thing: Object) -> dict[str, str]:
    return thing["metadata"].get("labels") or {}
