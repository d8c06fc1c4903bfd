"""What pods may send and receive, as one nftables table for their node, which replaces the one before at once.

It sees what the node forwards: what the node itself sends, such as a probe, passes. A connection that was let in goes
on, whatever is forbidden later. A refusal is answered, so that who asks knows at once: `No route to host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping

from testbed.kubernetes.network_policies import Allowed, Direction

TABLE = "shoal_policies"
Isolated = Mapping[tuple[str, Direction], Collection[Allowed]]
_SIDES: tuple[tuple[Direction, str, str, str], ...] = (
    ("Egress", "saddr", "daddr", "out"),
    ("Ingress", "daddr", "saddr", "in"),
)


def render(isolated: Isolated) -> str:
    """For the pods, by address and direction, that a policy is for: what may pass; nothing else does."""
    sets = _name_sets(isolated)
    lines = [f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{"]
    for peers, name in sets.items():
        elements = ", ".join(sorted(peers, key=ipaddress.ip_network))
        lines.append(f"  set {name} {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {elements} }}; }}")
    for direction, _, far, prefix in _SIDES:
        for address, allowed in _of_direction(isolated, direction).items():
            passes = sorted({_rule(each, far, sets) for each in allowed if each.peers != frozenset()})
            lines += [f"  chain {_chain(prefix, address)} {{", *(f"    {rule}" for rule in passes)]
            lines += ["    reject with icmp admin-prohibited", "  }"]
    lines += ["  chain forward {", "    type filter hook forward priority filter; policy accept;"]
    lines.append("    ct state established,related accept")
    for direction, near, _, prefix in _SIDES:
        if jumps := [f"{one} : jump {_chain(prefix, one)}" for one in _of_direction(isolated, direction)]:
            lines.append(f"    ip {near} vmap {{ {', '.join(jumps)} }}")
    return "\n".join([*lines, "  }", "}", ""])


def _of_direction(isolated: Isolated, wanted: Direction) -> dict[str, Collection[Allowed]]:
    found = {address: allowed for (address, direction), allowed in isolated.items() if direction == wanted}
    return dict(sorted(found.items(), key=lambda each: ipaddress.ip_address(each[0])))


def _name_sets(isolated: Isolated) -> dict[frozenset[str], str]:
    groups = {each.peers for allowed in isolated.values() for each in allowed if each.peers}
    return {peers: f"peers{number}" for number, peers in enumerate(sorted(groups, key=sorted))}


def _rule(allowed: Allowed, far: str, sets: Mapping[frozenset[str], str]) -> str:
    words = [] if allowed.peers is None else [f"ip {far} @{sets[allowed.peers]}"]
    if allowed.protocol is not None:
        protocol = allowed.protocol.lower()
        ports = f"{allowed.first_port}"
        if allowed.last_port != allowed.first_port:
            ports += f"-{allowed.last_port}"
        words.append(f"ip protocol {protocol}" if allowed.first_port is None else f"{protocol} dport {ports}")
    return " ".join([*words, "return"])


def _chain(prefix: str, address: str) -> str:
    return f"{prefix}_{address.replace('.', '_')}"
