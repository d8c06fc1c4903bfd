"""The bed's own agents: what a cluster has from its vendor, each a process on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from testbed.commands import run
from testbed.images import REPOSITORY
from testbed.kubernetes.bed import KubeBed
from testbed.kubernetes.daemons import Daemon
from testbed.kubernetes.environment import environment_of

AGENTS = ("volumes",)
_ADDONS = Path(__file__).parent / "addons"


def run_agent(bed: KubeBed, name: str) -> None:
    """Starts one; one that runs is left alone."""
    pairs = [f"{key}={value}" for key, value in environment_of(bed).items()]
    command = ["env", f"PYTHONPATH={REPOSITORY}", *pairs, sys.executable, "-m", f"testbed.kubernetes.{name}"]
    Daemon(bed.directory, name).start(command)


def apply_addons(bed: KubeBed, programs: Path) -> None:
    """The objects that a cluster has before anybody makes one."""
    options = ["--kubeconfig", bed.kubeconfig, "--cache-dir", bed.directory / "kubectl-cache"]
    run([programs / "kubectl", *options, "apply", "--server-side", "--force-conflicts", "-f", _ADDONS])
