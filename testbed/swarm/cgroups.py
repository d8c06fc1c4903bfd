"""The control groups of the nodes: one tree a node, with its daemons and its containers side by side below it.

By them a node is frozen, and all its processes are found. Version 1 has one tree a controller, version 2 one for all.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from testbed.swarm.bed import Bed, Node

ROOT = Path("/sys/fs/cgroup")
_NEEDED = ("memory", "cpuacct", "cpu", "pids", "freezer")


def _version_1() -> bool:
    return (ROOT / "freezer").is_dir()


def _trees() -> list[Path]:
    return [ROOT / name for name in _NEEDED if (ROOT / name).is_dir()] if _version_1() else [ROOT]


def parent_of_containers(node: Node) -> str:
    """As dockerd's `cgroup-parent` has it."""
    return f"/{node.bed.name}/{node.name}/containers"


def daemons_groups(node: Node) -> list[Path]:
    """The groups of the node's own processes, made if they aren't there: who starts one enters them."""
    groups = [tree / node.bed.name / node.name / "daemons" for tree in _trees()]
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    return groups


def processes(node: Node, *, daemons_only: bool = False) -> list[int]:
    """Host pids of all that runs in the node."""
    tree = (ROOT / "freezer" if _version_1() else ROOT) / node.bed.name / node.name
    lists = [tree / "daemons/cgroup.procs"] if daemons_only else tree.rglob("cgroup.procs")
    found: list[int] = []
    for path in lists:
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in path.read_text().split()]
    return found


def set_frozen(node: Node, frozen: bool) -> None:
    """Stops every process of the node, or lets them go on; what has no group is left alone."""
    if _version_1():
        path, value = ROOT / "freezer" / node.bed.name / node.name / "freezer.state", "FROZEN" if frozen else "THAWED"
    else:
        path, value = ROOT / node.bed.name / node.name / "cgroup.freeze", "1" if frozen else "0"
    if path.exists():
        path.write_text(value)


def is_frozen(node: Node) -> bool:
    try:
        if _version_1():
            return (ROOT / "freezer" / node.bed.name / node.name / "freezer.state").read_text().strip() != "THAWED"
        return (ROOT / node.bed.name / node.name / "cgroup.freeze").read_text().strip() == "1"
    except OSError:
        return False


def left_of(bed: Bed) -> list[Path]:
    """The groups that are there, of every controller."""
    trees = list(ROOT.iterdir()) if _version_1() else [ROOT]
    return [tree / bed.name for tree in trees if (tree / bed.name).is_dir()]


def remove(of: Bed | Node) -> None:
    """Removes them, or those of one node; a killed process leaves its group a moment later."""
    groups = left_of(of) if isinstance(of, Bed) else [group / of.name for group in left_of(of.bed)]
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            end = time.monotonic() + 2.0
            while time.monotonic() < end:
                try:
                    Path(folder).rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)
                else:
                    break
