"""The bed's network: a bridge in a namespace of its own, a cable to each node, and the host's leg."""

from __future__ import annotations

import json
import time
from pathlib import Path

from testbed.commands import BedError, run
from testbed.swarm.bed import Bed, Node

_PREFIX_BITS = 24


def fabric_is_up(bed: Bed) -> bool:
    return any(line.split()[:1] == [bed.fabric] for line in run(["ip", "netns", "list"]).splitlines())


def make_fabric(bed: Bed) -> None:
    """The bridge and the host's leg. Raises BedError where the machine has another way to these addresses."""
    if fabric_is_up(bed):
        if not _link_is_there(bed.host_link):
            _make_host_leg(bed)
        return
    check_free(f"{bed.network}.0/{_PREFIX_BITS}")
    run(["ip", "netns", "add", bed.fabric])
    inside = ["ip", "-n", bed.fabric]
    run(["ip", "netns", "exec", bed.fabric, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "link", "add", "bridge", "type", "bridge", "forward_delay", "0"])
    run([*inside, "addr", "add", f"{bed.bridge_address}/{_PREFIX_BITS}", "dev", "bridge"])
    run([*inside, "link", "set", "bridge", "up"])
    _make_host_leg(bed)


def _make_host_leg(bed: Bed) -> None:
    run(["ip", "link", "add", bed.host_link, "type", "veth", "peer", "name", "v-host", "netns", bed.fabric])
    run(["ip", "-n", bed.fabric, "link", "set", "v-host", "master", "bridge", "up"])
    # A host that forwards for others must not do it for containers.
    Path(f"/proc/sys/net/ipv4/conf/{bed.host_link}/forwarding").write_text("0")
    run(["ip", "addr", "add", f"{bed.host_address}/{_PREFIX_BITS}", "dev", bed.host_link])
    run(["ip", "link", "set", bed.host_link, "up"])


def check_free(addresses: str, own_link: str = "") -> None:
    """Raises BedError where this machine has a way to them that is not by the bed's own link."""
    for route in json.loads(run(["ip", "-j", "route", "show", "root", addresses]) or "[]"):
        if route.get("dev") != own_link:
            raise BedError(
                f"{addresses}: this machine reaches it by {route.get('dev', '?')} already (another bed, or your own);"
                " name another network with SHOAL_BED_NETWORK, a Kubernetes bed's with SHOAL_KUBE_BED_NETWORK"
            )


def remove_fabric(bed: Bed) -> None:
    """Takes the bridge and every cable away; a namespace ends a moment after its name."""
    if _link_is_there(bed.host_link):
        run(["ip", "link", "del", bed.host_link])
    if fabric_is_up(bed):
        run(["ip", "netns", "del", bed.fabric])
    end = time.monotonic() + 5.0
    while _link_is_there(bed.host_link) and time.monotonic() < end:
        time.sleep(0.02)


def left_of(bed: Bed) -> list[str]:
    """What is there of the network."""
    left = [f"network namespace {bed.fabric}"] if fabric_is_up(bed) else []
    return left + ([f"link {bed.host_link}"] if _link_is_there(bed.host_link) else [])


def plug_in(node: Node, init_pid: int) -> None:
    """A cable from the bridge to the node's namespaces, and the node's address."""
    inside = ["ip", "-n", node.bed.fabric]
    if node.cable in _cables(node.bed):
        run([*inside, "link", "del", node.cable])
    run([*inside, "link", "add", node.cable, "type", "veth", "peer", "name", "eth0", "netns", str(init_pid)])
    run([*inside, "link", "set", node.cable, "master", "bridge", "up"])
    there = ["nsenter", "--target", str(init_pid), "--net", "ip"]
    run([*there, "addr", "add", f"{node.address}/{_PREFIX_BITS}", "dev", "eth0"])
    run([*there, "link", "set", "eth0", "up"])
    # Docker wants a default route; nothing is forwarded at its end.
    run([*there, "route", "add", "default", "via", node.bed.bridge_address])


def set_cable(node: Node, plugged: bool) -> None:
    """Pulls or plugs the node's cable; one that died with its node is left alone."""
    if node.cable in _cables(node.bed):
        run(["ip", "-n", node.bed.fabric, "link", "set", node.cable, "up" if plugged else "down"])


def is_cut(node: Node) -> bool:
    return _cables(node.bed).get(node.cable) is False


def _cables(bed: Bed) -> dict[str, bool]:
    """Whether each is plugged in."""
    if not fabric_is_up(bed):
        return {}
    links = json.loads(run(["ip", "-n", bed.fabric, "-j", "link", "show"]) or "[]")
    return {link["ifname"]: "UP" in link["flags"] for link in links}


def _link_is_there(name: str) -> bool:
    return any(link["ifname"] == name for link in json.loads(run(["ip", "-j", "link", "show"]) or "[]"))
