"""What a bed is called, where its files lie, and what it was made of; no action here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from testbed.commands import BedError
from testbed.shapes import ShapeFile

LONGEST_SOCKET = 107  # bytes of a Unix socket's path
MOST_NODES = 20


@dataclass(frozen=True)
class Bed:
    """One Swarm. `network` is the first three numbers of its IPv4 network, a /24.

    Two beds may run beside each other if their names and networks differ.
    """

    name: str
    network: str
    cache: Path
    suite: str = "sid"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,7}", self.name):
            raise BedError(f"{self.name!r}: expected a bed's name of 1 to 8 lower-case letters and digits")
        if not re.fullmatch(r"\d{1,3}\.\d{1,3}\.\d{1,3}", self.network):
            raise BedError(f"{self.network!r}: expected the first three numbers of a network, such as 192.168.78")
        if len(str(self.node(MOST_NODES).socket)) > LONGEST_SOCKET:
            raise BedError(f"{self.directory}: too long for sockets in it; name another with SHOAL_BED_CACHE")

    @property
    def directory(self) -> Path:
        return self.cache / "beds" / self.name

    @property
    def fabric(self) -> str:
        """The network namespace of the bridge."""
        return f"{self.name}-fabric"

    @property
    def host_link(self) -> str:
        """The host's leg in the network."""
        return f"{self.name}-host"

    @property
    def host_address(self) -> str:
        return f"{self.network}.254"

    @property
    def bridge_address(self) -> str:
        """Where the registry is, if there is one; also the nodes' way to nowhere."""
        return f"{self.network}.253"

    def node(self, number: int) -> Node:
        return Node(self, number)

    def node_named(self, name: str) -> Node:
        """Raises BedError for one that the bed hasn't."""
        for node in self.nodes():
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes())
        raise BedError(f"{name}: no such node; " + (f"expected one of {names}" if names else "the bed is not up"))

    def nodes(self) -> list[Node]:
        """The nodes of the bed that is up; none where it isn't."""
        shape = self.shape.read()
        return [] if shape is None else [Node(self, number + 1) for number in range(shape.managers + shape.workers)]

    @property
    def shape(self) -> ShapeFile[Shape]:
        """What the bed that is up was made of."""
        return ShapeFile(self.directory / "bed.json", Shape, "testbed.swarm")


@dataclass(frozen=True)
class Node:
    """One machine of a bed; `number` counts from 1."""

    bed: Bed
    number: int

    @property
    def name(self) -> str:
        return f"n{self.number}"

    @property
    def address(self) -> str:
        return f"{self.bed.network}.{self.number}"

    @property
    def directory(self) -> Path:
        """The node's disk."""
        return self.bed.directory / self.name

    @property
    def socket(self) -> Path:
        """Docker's, found by its path from the host too."""
        return self.directory / "docker.sock"

    @property
    def cable(self) -> str:
        """The bridge's end of the node's link."""
        return f"v-{self.name}"


@dataclass(frozen=True)
class Shape:
    """What a bed is made of. `generic` has each node's generic resources, as `KIND=ID`; a node is down after three
    missed heartbeats."""

    managers: int = 1
    workers: int = 2
    heartbeat_s: float = 5.0
    registry: bool = False
    generic: Mapping[str, list[str]] = field(default_factory=dict[str, list[str]])

    def __post_init__(self) -> None:
        if self.managers < 1 or self.workers < 0 or self.managers + self.workers > MOST_NODES:
            raise BedError(f"{self}: expected at least one manager, and at most {MOST_NODES} nodes")
        names = {f"n{number + 1}" for number in range(self.managers + self.workers)}
        if unknown := sorted(set(self.generic) - names):
            raise BedError(f"--gres {', '.join(unknown)}: no such node; expected {', '.join(sorted(names))}")

    def __str__(self) -> str:
        parts = [f"managers: {self.managers}, workers: {self.workers}, heartbeat {self.heartbeat_s:g} s"]
        if self.registry:
            parts.append("a registry")
        parts += [f"{node}: {' '.join(resources)}" for node, resources in sorted(self.generic.items())]
        return ", ".join(parts)
