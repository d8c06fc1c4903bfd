"""Enforces NetworkPolicies, which the bed's network of bridges does not: nftables in each node's network namespace.

`python -m testbed.kubernetes.policies` runs for ever, for the bed that the environment names. Of a new pod it hears
once that has its address: for a moment before nothing is kept from it, as with most networks.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import NoReturn

from testbed.commands import BedError
from testbed.kubernetes.api import Api, Object
from testbed.kubernetes.environment import bed_from_environment
from testbed.kubernetes.mirror import act_on
from testbed.kubernetes.network_policies import Cluster, Direction, address_of
from testbed.kubernetes.nft_rules import Isolated, render
from testbed.swarm import node as machine
from testbed.swarm.bed import Bed, Node

_PATHS = ("/apis/networking.k8s.io/v1/networkpolicies", "/api/v1/pods", "/api/v1/namespaces")
_DIRECTIONS: tuple[Direction, ...] = ("Ingress", "Egress")
_NFT_S = 20.0


class Enforcer:
    """Writes each node's table when it is another one than the last, or the node was started anew."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._written: dict[str, tuple[int, str]] = {}

    def enforce(self, known: Sequence[list[Object]]) -> None:
        """One that can't be written to now is so the next time."""
        cluster = Cluster.of(*known)
        for node in self._bed.nodes():
            pid = machine.init_pid(node)
            wanted = (pid, render(isolated_on(cluster, node.name)))
            if pid is None or self._written.get(node.name) == wanted:
                continue
            try:
                _write(node, wanted[1])
                self._written[node.name] = (pid, wanted[1])
            except (BedError, OSError, subprocess.SubprocessError) as error:
                print(f"{node.name}: {error}", flush=True)


def isolated_on(cluster: Cluster, node: str) -> Isolated:
    """What may pass to and from the node's pods that policies are for."""
    return {
        (address_of(pod), direction): allowed
        for pod in cluster.pods_on(node)
        for direction in _DIRECTIONS
        if (allowed := cluster.allowed(pod, direction)) is not None
    }


def _write(node: Node, table: str) -> None:
    command = machine.inside(node, ["nft", "--file", "-"])
    done = subprocess.run(command, input=table, text=True, capture_output=True, check=False, timeout=_NFT_S)
    if done.returncode != 0:
        raise BedError(f"nft: {done.stderr.strip()[:2000]}")


def main() -> NoReturn:
    bed = bed_from_environment()
    enforcer = Enforcer(bed)
    act_on(Api(bed), _PATHS, enforcer.enforce)


if __name__ == "__main__":
    main()
