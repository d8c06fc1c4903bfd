"""A bed from nothing to ready and back; each step leaves alone what is as it should be."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from testbed.commands import BedError, on_each, until
from testbed.kubernetes import control_plane, node
from testbed.kubernetes.agents import AGENTS, apply_addons, run_agent
from testbed.kubernetes.audit import forget_audit
from testbed.kubernetes.authority import make_keys
from testbed.kubernetes.bed import KubeBed, KubeShape
from testbed.kubernetes.binaries import binaries, program
from testbed.kubernetes.daemons import Daemon
from testbed.kubernetes.simulation import KWOK
from testbed.swarm import cgroups, network
from testbed.swarm import node as machine
from testbed.swarm.bed import Node
from testbed.swarm.life import left_of

_NODES_S = 90.0


def prepare(bed: KubeBed, version: str) -> Path:
    """What takes the network, once: the programs, and the nodes' root file system. The directory of Kubernetes'."""
    for name in ("coredns", "metrics-server"):
        program(bed.cache, name)
    node.node_root(bed.cache)
    return binaries(bed.cache, version)


def up(bed: KubeBed, shape: KubeShape | None) -> KubeShape:
    """The bed, whole: what is missing of it is started, what is cut healed, what is frozen thawed.

    Without a shape it is the one that is up, or two nodes. Raises BedError where another one is up.
    """
    wanted = bed.kube_shape.choose(shape)
    programs = prepare(bed, wanted.version)
    network.make_fabric(bed)
    network.check_free(bed.pods, bed.host_link)
    bed.directory.mkdir(parents=True, exist_ok=True)
    bed.volumes.mkdir(exist_ok=True)
    make_keys(bed)
    bed.kube_shape.write(wanted)
    for part in control_plane.PARTS[:2]:
        control_plane.run_part(bed, part, programs)
    nodes = bed.nodes()
    on_each(nodes, lambda each: node.start(each, bed, programs))
    node.connect(bed)
    control_plane.wait_ready(bed)
    for part in control_plane.PARTS[2:]:
        control_plane.run_part(bed, part, programs)
    apply_addons(bed, programs)
    for agent in AGENTS:
        run_agent(bed, agent)
    names = {each.name for each in nodes}
    until(lambda: names <= control_plane.ready_nodes(bed), "the nodes", timeout_s=_NODES_S, errors=(OSError,))
    return wanted


def start(bed: KubeBed, one: Node) -> None:
    """Boots a node that was killed: with its disk, so it is who it was."""
    shape = bed.kube_shape.read()
    if shape is None:
        raise BedError("the bed is not up; start it with: python -m testbed.kubernetes up")
    node.start(one, bed, prepare(bed, shape.version))
    node.connect(bed)


def run_part(bed: KubeBed, name: str) -> None:
    """Starts a part of the control plane, or an agent, that was stopped."""
    if name in AGENTS:
        run_agent(bed, name)
    else:
        shape = bed.kube_shape.read() or KubeShape()
        control_plane.run_part(bed, name, prepare(bed, shape.version))


def down(bed: KubeBed, *, purge: bool = False) -> None:
    """Ends all of it. Images stay on the nodes' disks, for the next time, unless purged.

    Raises BedError which names what is left, should anything be.
    """
    nodes = bed.nodes()
    on_each(nodes, machine.kill)
    for name in (KWOK, *AGENTS, *control_plane.PARTS):
        Daemon(bed.directory, name).stop(signal.SIGKILL)
    network.remove_fabric(bed)
    cgroups.remove(bed)
    bed.kube_shape.write(None)
    for left in (bed.directory / "etcd", bed.volumes):
        shutil.rmtree(left, ignore_errors=True)
    forget_audit(bed)
    on_each(nodes, _forget)
    if purge and bed.directory.exists():
        shutil.rmtree(bed.directory)
    if left := left_of(bed):
        raise BedError(f"left behind: {', '.join(left)}")


def _forget(one: Node) -> None:
    """All on the node's disk but images."""
    for name in ("kubelet", "log"):
        shutil.rmtree(one.directory / name, ignore_errors=True)
    for pattern in ("containerd/io.containerd.grpc.v1.cri", "containerd/io.containerd.runtime*"):
        for path in one.directory.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def status(bed: KubeBed) -> list[tuple[str, str]]:
    """Each part and each node, and how it is."""
    found = [(name, _of_daemon(bed, name)) for name in (*control_plane.PARTS, *AGENTS)]
    try:
        ready = control_plane.ready_nodes(bed)
    except OSError:
        ready = set[str]()
    return found + [(f"{one.name} {one.address}", _of_node(one, ready)) for one in bed.nodes()]


def _of_daemon(bed: KubeBed, name: str) -> str:
    return "runs" if Daemon(bed.directory, name).pid is not None else "stopped"


def _of_node(one: Node, ready: set[str]) -> str:
    if machine.init_pid(one) is None:
        return "killed"
    if cgroups.is_frozen(one):
        return "frozen"
    if network.is_cut(one):
        return "cut"
    return "ready" if one.name in ready else "runs, not ready"
