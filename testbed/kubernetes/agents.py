"""The bed's own agents: what a cluster has from its vendor, each a process on this machine; and its first objects."""

from __future__ import annotations

import string
import sys
from pathlib import Path

from testbed.commands import run
from testbed.images import REPOSITORY
from testbed.kubernetes.bed import ADMIN, KubeBed, kubeconfig_of
from testbed.kubernetes.binaries import program
from testbed.kubernetes.daemons import Daemon
from testbed.kubernetes.environment import environment_of

AGENTS = ("volumes", "policies", "metrics-server")
_ADDONS = Path(__file__).parent / "addons"


def run_agent(bed: KubeBed, name: str) -> None:
    """Starts one; one that runs is left alone."""
    command = _metrics_server(bed) if name == "metrics-server" else _python(bed, name)
    Daemon(bed.directory, name).start(command)


def apply_addons(bed: KubeBed, programs: Path) -> None:
    """The objects that a cluster has before anybody makes one."""
    made = bed.directory / "addons.yaml"
    made.write_text(addons_of(bed))
    options = ["--kubeconfig", bed.kubeconfig, "--cache-dir", bed.directory / "kubectl-cache"]
    run([programs / "kubectl", *options, "apply", "--server-side", "--force-conflicts", "-f", made])


def addons_of(bed: KubeBed) -> str:
    """They, as YAML."""
    files = [string.Template(file.read_text()) for file in sorted(_ADDONS.glob("*.yaml"))]
    return "---\n".join(file.substitute(bridge=bed.bridge_address) for file in files)


def _python(bed: KubeBed, name: str) -> list[str]:
    pairs = [f"{key}={value}" for key, value in environment_of(bed).items()]
    return ["env", f"PYTHONPATH={REPOSITORY}", *pairs, sys.executable, "-m", f"testbed.kubernetes.{name}"]


def _metrics_server(bed: KubeBed) -> list[str]:
    by = str(kubeconfig_of(bed, ADMIN))
    settings = {
        "kubeconfig": by,
        "authentication-kubeconfig": by,
        "authorization-kubeconfig": by,
        "secure-port": "4443",
        "cert-dir": str(bed.directory / "metrics-server"),
        "kubelet-preferred-address-types": "InternalIP",
        "kubelet-use-node-status-port": "true",
        "kubelet-insecure-tls": "true",
        "metric-resolution": "15s",
    }
    words = [f"--{key}={value}" for key, value in settings.items()]
    return ["nsenter", f"--net=/run/netns/{bed.fabric}", str(program(bed.cache, "metrics-server")), *words]
