"""What a Kubernetes bed is called, where its files lie, and what it was made of; no action here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.commands import BedError
from testbed.shapes import ShapeFile
from testbed.swarm.bed import MOST_NODES, Bed, Node

API_PORT = 6443
ADMIN = "admin"
SERVICES = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
_PODS_FROM = 244 - 77


@dataclass(frozen=True)
class KubeShape:
    """What a bed is made of."""

    nodes: int = 2
    version: str = "1.34.4"

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MOST_NODES:
            raise BedError(f"found {self.nodes} nodes, expected 1 to {MOST_NODES}")

    def __str__(self) -> str:
        return f"Kubernetes {self.version}, {self.nodes} nodes"


@dataclass(frozen=True)
class KubeBed(Bed):
    """One cluster; the names are those of `Bed`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pods == SERVICES:
            raise BedError(f"{self.network}: its pods would have the addresses of services, {SERVICES}; name another")

    @property
    def pods(self) -> str:
        """The addresses of all pods."""
        return f"{_pods(self)}.0.0/16"

    @property
    def api_url(self) -> str:
        return f"https://{self.bridge_address}:{API_PORT}"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.directory / "kubeconfig"

    @property
    def volumes(self) -> Path:
        """What pods keep: every node has it at this path."""
        return self.directory / "volumes"

    def nodes(self) -> list[Node]:
        """The nodes of the bed that is up; none where it isn't."""
        shape = self.kube_shape.read()
        return [] if shape is None else [Node(self, number + 1) for number in range(shape.nodes)]

    @property
    def kube_shape(self) -> ShapeFile[KubeShape]:
        """What the bed that is up was made of."""
        return ShapeFile(self.directory / "kubernetes.json", KubeShape, "testbed.kubernetes")


def kubeconfig_of(bed: KubeBed, user: str) -> Path:
    """One user's."""
    return bed.directory / "keys" / f"{user}.kubeconfig"


def token_of(user: str) -> str:
    """The bed is nobody's but this machine's."""
    return f"token-of-{user}"


def pods_of(node: Node) -> str:
    """The addresses of a node's pods."""
    return f"{_pods(node.bed)}.{node.number}.0/24"


def _pods(bed: Bed) -> str:
    """10.244 on the usual network, other numbers on others: so the pods of two beds are not taken for each other's."""
    return f"10.{(int(bed.network.rpartition('.')[2]) + _PODS_FROM) % 256}"
