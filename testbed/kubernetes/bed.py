"""What a Kubernetes bed is called, where its files lie, and what it was made of; no action here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.commands import BedError
from testbed.swarm.bed import MOST_NODES, Bed, Node

API_PORT = 6443
SERVICES = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
PODS = "10.244.0.0/16"


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

    @property
    def api_url(self) -> str:
        return f"https://{self.bridge_address}:{API_PORT}"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.directory / "kubeconfig"

    def nodes(self) -> list[Node]:
        """The nodes of the bed that is up; none where it isn't."""
        shape = self.read_kube_shape()
        return [] if shape is None else [Node(self, number + 1) for number in range(shape.nodes)]

    def read_kube_shape(self) -> KubeShape | None:
        """What the bed that is up was made of."""
        try:
            return KubeShape(**json.loads((self.directory / "kubernetes.json").read_text()))
        except FileNotFoundError:
            return None

    def write_kube_shape(self, shape: KubeShape | None) -> None:
        """Keeps it, or forgets it."""
        path = self.directory / "kubernetes.json"
        if shape is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(json.dumps(asdict(shape), indent=1))


def pods_of(node: Node) -> str:
    """The addresses of a node's pods."""
    return f"10.244.{node.number}.0/24"
