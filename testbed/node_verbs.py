"""What may be done to one node of any bed, by the verbs of the command line."""

from __future__ import annotations

from collections.abc import Callable

from testbed.swarm import cgroups, network
from testbed.swarm import node as machine
from testbed.swarm.bed import Node

NodeVerbs = dict[str, tuple[Callable[[Node], None], str]]

NODE_VERBS: NodeVerbs = {
    "kill": (machine.kill, "a power failure: the cable first, then every process at once"),
    "cut": (lambda node: network.set_cable(node, plugged=False), "pulls the node's cable"),
    "heal": (lambda node: network.set_cable(node, plugged=True), "plugs it in again"),
    "freeze": (lambda node: cgroups.set_frozen(node, True), "stops every process of the node"),
    "thaw": (lambda node: cgroups.set_frozen(node, False), "lets them go on"),
}
START = "boots a killed node again, with its disk: it is who it was"
