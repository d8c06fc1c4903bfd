"""One node: namespaces with a root file system of their own under one process 1, without dockerd yet."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from testbed.commands import BedError, launch, start_of, until
from testbed.swarm import cgroups, network
from testbed.swarm.bed import Node

# What is written below `/` of a node goes to memory and ends with it, its disk ($DISK) aside. The sysfs is that of the
# node's network, with the host's control groups in it. `/run/netns` would keep other namespaces alive.
_BOOT = r"""
set -e
mount -t proc proc /proc
hostname "$NODE"
umount -l /run/netns 2>/dev/null || true
mount -t tmpfs tmpfs /run
mkdir -p /run/changes/upper /run/changes/work /run/root
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=/run/changes/upper,workdir=/run/changes/work" /run/root
cd /run/root
mkdir -p proc sys dev run tmp old
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
mkdir -p run/lock ".$DISK"
mount --bind "$DISK" ".$DISK"
if [ "$SHARED" ]; then
  mkdir -p ".$SHARED"
  mount --bind "$SHARED" ".$SHARED"
fi
rm -f etc/resolv.conf etc/hosts
printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' > etc/resolv.conf # refuses at once: no name waits
printf '127.0.0.1 localhost\n%s %s\n%s registry\n' "$ADDRESS" "$NODE" "$REGISTRY" > etc/hosts
ip link set lo up
pivot_root . old
cd /
umount -l /old
exec tini -s -- sleep infinity
"""
_SPACES = ["--mount", "--propagation", "private", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]


def init_pid(node: Node) -> int | None:
    """The host's pid of the node's process 1, where it lives."""
    try:
        pid, started = (node.directory / "init").read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if start_of(int(pid)) == started else None


def boot(node: Node, root: Path, shared: Path | None = None) -> None:
    """Starts a node that isn't there, and plugs in its cable; what is there is left alone.

    `shared` is a directory that all nodes have, at the same path.
    """
    if init_pid(node) is not None:
        return
    node.directory.mkdir(parents=True, exist_ok=True)
    log, starter = node.directory / "boot.log", node.directory / "starter.pid"
    log.unlink(missing_ok=True)
    launch(
        ["unshare", *_SPACES, "sh", "-c", _BOOT], starter, log, groups=cgroups.daemons_groups(node),
        NODE=node.name, ROOT=str(root), DISK=str(node.directory), ADDRESS=node.address,
        REGISTRY=node.bed.bridge_address, SHARED=str(shared or ""),
    )  # fmt: skip
    parent = int(starter.read_text())

    def child() -> int | None:
        if start_of(parent) is None:
            raise BedError(f"{node.name} can't start: {log.read_text().strip()}")
        pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return next((int(pid) for pid in pids if _program_of(int(pid)) == "tini"), None)

    pid = until(child, f"{node.name} to boot, see {log}", timeout_s=20, errors=(OSError,))
    (node.directory / "init").write_text(f"{pid} {start_of(pid)}")
    network.plug_in(node, pid)


def inside(node: Node, command: list[str]) -> list[str]:
    """The command, run in the node's namespaces. Raises BedError where the node isn't running."""
    pid = init_pid(node)
    if pid is None:
        raise BedError(f"{node.name} is not running; start it with: python -m testbed.swarm start {node.name}")
    return ["nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--", *command]


def kill(node: Node) -> None:
    """A power failure: the cable first, then all processes at once."""
    network.set_cable(node, plugged=False)
    cgroups.set_frozen(node, False)  # what is frozen dies only once it is thawed
    pid = init_pid(node)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not cgroups.processes(node), f"{node.name}'s processes to end", timeout_s=20, errors=(OSError,))
    cgroups.remove(node)  # no machine boots with those of before: kubelet would wait 3 s for each container of then
    (node.directory / "init").unlink(missing_ok=True)


def _program_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].rpartition("/")[2]
    except OSError:
        return ""
