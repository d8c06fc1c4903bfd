"""A bed from nothing to ready and back; each step leaves alone what is as it should be."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from testbed.commands import BedError, need_programs, on_each
from testbed.docker_root import docker_root
from testbed.swarm import cgroups, dockerd, forming, loading, network, registry
from testbed.swarm import node as machine
from testbed.swarm.bed import Bed, Node, Shape
from testbed.swarm.engine_api import NoAnswer, Refused, answers, call


@contextlib.contextmanager
def held(bed: Bed) -> Generator[None]:
    """One command at a time changes a bed. Raises BedError without root, and where another holds it for a minute."""
    if os.geteuid() != 0:
        raise BedError("the bed needs root, for namespaces and mounts: run it with sudo, or in a virtual machine")
    need_programs()
    bed.directory.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60
    with (bed.directory / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise BedError(f"{bed.directory}: another command has held the bed for a minute") from None
                time.sleep(0.1)
        yield


def prepare(bed: Bed) -> Path:
    """What takes the network, once: Docker's root file system."""
    return docker_root(bed.cache, bed.suite)


def up(bed: Bed, shape: Shape | None) -> Shape:
    """The bed, whole: what is missing of it is started, what is cut healed, what is frozen thawed.

    Without a shape it is the one that is up, or one manager and two workers. Raises BedError where another one is up.
    """
    was_up = bed.shape.read() is not None
    wanted = bed.shape.choose(shape)
    root = prepare(bed)
    if wanted.registry:
        registry.program(bed.cache)
    network.make_fabric(bed)
    bed.directory.mkdir(parents=True, exist_ok=True)
    bed.shape.write(wanted)
    if wanted.registry:
        registry.start(bed)
    nodes = bed.nodes()
    on_each(nodes, lambda node: _start_whole(node, root, wanted))
    if not was_up:
        on_each(nodes, loading.forget_untagged)
    forming.form(nodes, wanted)
    return wanted


def _start_whole(node: Node, root: Path, shape: Shape) -> None:
    cgroups.set_frozen(node, False)
    machine.boot(node, root)
    network.set_cable(node, plugged=True)
    dockerd.start(node, shape.generic.get(node.name, ()))


def start(node: Node) -> None:
    """Boots a node that was killed: with its disk, so it is who it was."""
    shape = node.bed.shape.read()
    if shape is None:
        raise BedError("the bed is not up; start it with: python -m testbed.swarm up")
    _start_whole(node, prepare(node.bed), shape)


def start_dockerd(node: Node) -> None:
    """After it was killed alone."""
    shape = node.bed.shape.read() or Shape()
    dockerd.start(node, shape.generic.get(node.name, ()))


def down(bed: Bed, *, purge: bool = False) -> None:
    """Ends all of it. Images stay on the nodes' disks, for the next time, unless purged.

    Raises BedError which names what is left, should anything be.
    """
    nodes = bed.nodes()
    on_each(nodes, machine.kill)
    registry.stop(bed)
    on_each(nodes, dockerd.forget)
    network.remove_fabric(bed)
    cgroups.remove(bed)
    bed.shape.write(None)
    if purge and bed.directory.exists():
        shutil.rmtree(bed.directory)
    if left := left_of(bed):
        raise BedError(f"left behind: {', '.join(left)}")


def left_of(bed: Bed) -> list[str]:
    """What there is of the bed beside files: namespaces, links, mounts, groups, processes."""
    left = [*network.left_of(bed), *(f"control group {group}" for group in cgroups.left_of(bed))]
    directory = f"{bed.directory}/"
    left += [f"mount {line.split()[1]}" for line in Path("/proc/mounts").read_text().splitlines() if directory in line]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if directory in words and int(process.name) != os.getpid():
                left.append(f"process {process.name} {words[:100]}")
    return left


@dataclass(frozen=True)
class NodeState:
    """What a person wants to know of a node."""

    name: str
    address: str
    state: str
    role: str
    socket: str


def status(bed: Bed) -> list[NodeState]:
    """Every node of the bed that is up."""
    return [_state_of(node) for node in bed.nodes()]


def _state_of(node: Node) -> NodeState:
    known = NodeState(node.name, node.address, "running", "?", str(node.socket))
    if machine.init_pid(node) is None:
        return replace(known, state="killed")
    if cgroups.is_frozen(node):
        return replace(known, state="frozen")
    if not answers(node):
        return replace(known, state="without dockerd")
    with contextlib.suppress(NoAnswer, Refused):
        swarm = call(node, "GET", "/info")["Swarm"]
        role = "manager" if swarm["ControlAvailable"] else "worker" if swarm["LocalNodeState"] == "active" else "none"
        known = replace(known, role=role)
    return replace(known, state="cut" if network.is_cut(node) else "running")


def table(states: list[NodeState]) -> str:
    """As text, one line a node."""
    rows = [[getattr(state, field.name) for field in fields(NodeState)] for state in states]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
