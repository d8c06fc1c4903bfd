"""A fleet on the test bed's Kubernetes, started as people do.

What it is held against, in `kubernetes_plain`, has the same program in the same image; both are asked at a NodePort of
the first node, which stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.live_fleet import HERE, LiveFleet, temporary_directory
from shoal.api.client import Client
from shoal.cli.kubernetes.place import KubernetesPlace
from testbed.images import build_images
from testbed.kubernetes import node
from testbed.kubernetes.bed import KubeBed
from testbed.kubernetes.environment import bed_from_environment

AGENT = ["python3", "-c", (HERE / "cluster_agent.py").read_text()]
NODE_PORT = 30090
_DOWN_S = 300.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KubernetesFleet(LiveFleet):
    """See `LiveFleet`; `image` is what agents run in, `shoal_image` what Shoal itself does."""

    bed: KubeBed
    image: str
    shoal_image: str

    @property
    def url(self) -> str:
        return f"http://{self.bed.node(1).address}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {**LiveFleet.environment.__get__(self), "KUBECONFIG": str(self.bed.kubeconfig)}

    @property
    def place(self) -> KubernetesPlace:
        return KubernetesPlace(self.name, self.bed.name, self.name, self.environment)

    def ask(self, question: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run(question(self.place.client()))

    def agent_spec(self, **more: Any) -> dict[str, Any]:
        """The program as a service of the fleet."""
        return {"image": self.image, "command": AGENT, "public": "/web", "health": "/healthz", "port": 8000, **more}

    def write(self, agents: Mapping[str, Any], **more: Any) -> None:
        """The fleet's file."""
        own = {"image": self.shoal_image, "service": "NodePort", "node_port": self.port}
        spec = {"fleet": self.name, "engine": "kubernetes", "context": self.bed.name, "kubernetes": own}
        (self.directory / "shoal.yaml").write_text(json.dumps({**spec, "agents": agents, **more}))  # JSON is YAML


@contextlib.contextmanager
def on_kubernetes(name: str) -> Generator[KubernetesFleet]:
    """A fleet's directory and the bed with the images; what is started of it is gone afterwards."""
    bed = bed_from_environment()
    if not bed.nodes():
        raise RuntimeError("no Kubernetes: `make kube-up` makes one")
    images = build_images(bed.cache)
    node.load_on_each(bed.nodes(), images.all())
    with temporary_directory() as directory:
        named = node.name_of(images.agents), node.name_of(images.shoal)
        fleet = KubernetesFleet(name, directory, NODE_PORT, bed, *named)
        try:
            yield fleet
        except BaseException:
            with contextlib.suppress(subprocess.SubprocessError):  # what went wrong first is what counts
                fleet.shoal("down", "--volumes", "-y", timeout_s=_DOWN_S)
            raise
        fleet.shoal("down", "--volumes", "-y", timeout_s=_DOWN_S)
