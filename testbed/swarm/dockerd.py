"""The daemon of a node: its settings, its start, its death without the node's, what it leaves on the node's disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.commands import launch, until
from testbed.swarm import cgroups
from testbed.swarm.bed import Node
from testbed.swarm.engine_api import answers
from testbed.swarm.node import inside

_DAEMONS = frozenset({"dockerd", "containerd"})


def settings(node: Node, generic: Sequence[str]) -> dict[str, Any]:
    """dockerd's configuration, as its `daemon.json` has it."""
    disk = node.directory
    found: dict[str, Any] = {
        "data-root": str(disk / "data"),
        "exec-root": str(disk / "exec"),
        "pidfile": str(disk / "dockerd.pid"),
        # The second is where containers that are given Docker's socket expect it.
        "hosts": [f"unix://{node.socket}", "unix:///run/docker.sock"],
        "cgroup-parent": cgroups.parent_of_containers(node),
        "storage-driver": "overlay2",
        "features": {"containerd-snapshotter": False},  # images are told from each other by the ID of their config
        "insecure-registries": [f"{node.bed.network}.0/24", "registry:5000"],
        "labels": [f"bed={node.bed.name}"],
    }
    return found | ({"node-generic-resources": list(generic)} if generic else {})


def start(node: Node, generic: Sequence[str]) -> None:
    """Starts it and waits until it answers; one that does is left alone."""
    if answers(node):
        return
    for stale in (node.socket, node.directory / "dockerd.pid", *node.directory.glob("exec/containerd/*.pid")):
        stale.unlink(missing_ok=True)
    (node.directory / "daemon.json").write_text(json.dumps(settings(node, generic), indent=1))
    log = node.directory / "dockerd.log"
    daemon = inside(node, ["dockerd", "--config-file", str(node.directory / "daemon.json")])
    launch(daemon, node.directory / "dockerd-starter.pid", log, groups=cgroups.daemons_groups(node))
    until(lambda: answers(node), f"the dockerd of {node.name}, see {log}", timeout_s=90)


def kill(node: Node) -> None:
    """SIGKILL for dockerd and containerd; the containers go on."""
    for pid in cgroups.processes(node, daemons_only=True):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].rpartition("/")[2] in _DAEMONS:
                os.kill(pid, signal.SIGKILL)


def forget(node: Node) -> None:
    """Takes the swarm, its networks, volumes and containers off the disk of a node that is down; images stay."""
    layers = node.directory / "data/overlay2"
    for mount in node.directory.glob("data/image/overlay2/layerdb/mounts/*"):
        for name in ("mount-id", "init-id"):
            with contextlib.suppress(OSError):
                layer = layers / (mount / name).read_text().strip()
                (layers / "l" / (layer / "link").read_text().strip()).unlink(missing_ok=True)
                shutil.rmtree(layer)
        shutil.rmtree(mount, ignore_errors=True)
    for name in ("swarm", "network", "containers", "containerd", "volumes", "tmp", "runtimes", "plugins"):
        shutil.rmtree(node.directory / "data" / name, ignore_errors=True)
    shutil.rmtree(node.directory / "exec", ignore_errors=True)
    for name in ("docker.sock", "dockerd.pid", "dockerd.log", "boot.log", "daemon.json"):
        (node.directory / name).unlink(missing_ok=True)
