"""The fleet as a user runs it: by the `shoal` command, with a state directory of its own; and its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from shoal.api.client import Client, socket_path

REPOSITORY = Path(__file__).parents[3]
SHOAL_YAML = Path(__file__).parents[1] / "shoal.yaml"
FLEET = "warehouse"
UP_TIMEOUT_S = 120
DOWN_TIMEOUT_S = 60


class FleetFailed(Exception):
    """`shoal` ended with an error, which it has printed."""


class DemoFleet:
    """One private fleet: its state, its log of effects and its load lie in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.sink = home / "effects.jsonl"
        self.client = Client(socket_path(home / "state" / FLEET))

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with the commands of its own Python first in PATH."""
        commands = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": f"{commands}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "SHOAL_HOME": str(self.home / "state"),
            "WAREHOUSE_SINK": str(self.sink),
        }

    def up(self) -> None:
        """`shoal up -d`: returns once the fleet is settled. Raises FleetFailed."""
        # Any free port, so that the demo can run beside a fleet of yours.
        self._shoal("up", "-d", "-y", "-e", "dev", "--set", "local.port=0", timeout_s=UP_TIMEOUT_S)

    def down(self) -> None:
        """`shoal down --volumes`: stops everything and forgets it. Raises FleetFailed."""
        self._shoal("down", "-y", "--volumes", timeout_s=DOWN_TIMEOUT_S)

    def start_load(self, target: str, schedule: Path, outcomes: Path, seconds: float) -> subprocess.Popen[bytes]:
        """The load generator, as a process of its own; it isn't reached by Ctrl-C, whoever started it ends it."""
        command = [sys.executable, "-m", "bench.load", "--target", target, "--schedule", str(schedule)]
        command += ["--out", str(outcomes), "--max-seconds", str(seconds)]
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=self.environment, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def steal_task(self) -> str:
        """Take one image task from its queue and drop it, with the credentials of a worker; gives its id."""
        worker = next(self._agent_environments("image-processing"))
        thief = [sys.executable, "-m", "examples.warehouse.warehouse_demo.thief"]
        taken = subprocess.run(thief, cwd=REPOSITORY, env=worker, capture_output=True, text=True, check=True)
        return taken.stdout.strip()

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this fleet, by its command line or environment; not this one."""
        mark = str(self.home)
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                told = " ".join(process.cmdline()) + " ".join(process.environ().values())
                if mark in told and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # ended in this moment, or another user's
        return found

    def _agent_environments(self, agent: str) -> Iterator[Mapping[str, str]]:
        for process in self.processes():
            environment = process.environ()
            if environment.get("SHOAL_AGENT") == agent:
                yield environment

    def _shoal(self, *arguments: str, timeout_s: float) -> None:
        # A session of its own: Ctrl-C is for the demo, which then ends the fleet in order.
        done = subprocess.run(
            ["shoal", *arguments, "-f", str(SHOAL_YAML)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            start_new_session=True,
            check=False,
        )
        if done.returncode != 0:
            raise FleetFailed(f"`shoal {' '.join(arguments)}` ended with {done.returncode}")


def kill_listener(address: str) -> int | None:
    """kill -9 of the process that listens on `host:port`; gives its pid, `None` if there is none (any more)."""
    port = int(address.rpartition(":")[2])
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port:
            if connection.pid is not None:
                os.kill(connection.pid, signal.SIGKILL)
            return connection.pid
    return None


def end(processes: list[psutil.Process]) -> None:
    """Kill what should have ended by itself."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=5)
