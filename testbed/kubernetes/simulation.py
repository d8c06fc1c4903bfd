"""Simulated nodes, for measuring with hundreds: the real API server, scheduler and controllers, and pods that only seem
to run. KWOK plays their kubelets.

A pod goes there by a toleration of the taint `kwok.x-k8s.io/node`, and nowhere else by a node selector, `type: kwok`;
an agent by `placement: {require: {kwok.x-k8s.io/node: fake}}`, which is both.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.commands import BedError, until
from testbed.kubernetes import control_plane
from testbed.kubernetes.api import Api, Object
from testbed.kubernetes.bed import ADMIN, KubeBed, kubeconfig_of
from testbed.kubernetes.binaries import program
from testbed.kubernetes.daemons import Daemon

KWOK = "kwok"
_MOST = 5000
_AT_ONCE = 16
_READY_S = 120.0
_NODES = "/api/v1/nodes"
MARK = "kwok.x-k8s.io/node"
_PODS = Path(__file__).with_name("simulated_pods.yaml")
_SIZE = {"cpu": "32", "memory": "256Gi", "pods": "110"}


def simulate(bed: KubeBed, count: int) -> None:
    """Makes them so many: others are added or taken away, and at none KWOK ends. Raises BedError."""
    if not 0 <= count <= _MOST:
        raise BedError(f"found {count} simulated nodes, expected 0 to {_MOST}")
    if bed.kube_shape.read() is None:
        raise BedError("the bed is not up; start it with: python -m testbed.kubernetes up")
    api, daemon = Api(bed), Daemon(bed.directory, KWOK)
    wanted = {f"sim-{number + 1}": number for number in range(count)}
    there = {node["metadata"]["name"] for node in api.list(_NODES, timeout_s=_READY_S)[0]}
    gone = {name for name in there - wanted.keys() if name.startswith("sim-")}
    missing = [simulated_node(name, number) for name, number in wanted.items() if name not in there]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        begun = [threads.submit(api.delete, f"{_NODES}/{name}") for name in gone]
        begun += [threads.submit(api.create, _NODES, node) for node in missing]
        for each in begun:
            each.result()
    if not count:
        daemon.stop(signal.SIGKILL)
        return
    daemon.start(_command(bed))
    what = f"the simulated nodes, see {daemon.log}"
    until(lambda: wanted.keys() <= control_plane.ready_nodes(bed), what, timeout_s=_READY_S, errors=(OSError,))


def simulated_node(name: str, number: int) -> Object:
    """A large one, of one of three zones."""
    labels = {"type": KWOK, MARK: "fake", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {
        "metadata": {
            "name": name,
            "annotations": {MARK: "fake"},
            "labels": {**labels, "topology.kubernetes.io/zone": f"z{number % 3 + 1}"},
        },
        "spec": {"taints": [{"key": MARK, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": _SIZE, "capacity": _SIZE},
    }


def _command(bed: KubeBed) -> list[str]:
    kwok = program(bed.cache, KWOK)
    settings = {
        "kubeconfig": str(kubeconfig_of(bed, ADMIN)),
        "manage-all-nodes": "false",
        "manage-nodes-with-annotation-selector": f"{MARK}=fake",
        "node-lease-duration-seconds": "40",
        "v": "WARN",
    }
    configs = (kwok.with_name("stages.yaml"), _PODS)
    return [
        str(kwok),
        *(f"--config={config}" for config in configs),
        *(f"--{key}={value}" for key, value in settings.items()),
    ]
