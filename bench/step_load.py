"""A step of load on a cluster: enough for one replica of `cluster_agent`, then at once for three."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.live_fleet import HERE, LiveFleet
from bench.load import Request, write_schedule

SCALE = {"min": 1, "max": 4, "target": {"concurrency": 20}}
SERVICE_S = 0.4
BEFORE_RPS, STEP_RPS = 38, 150  # times SERVICE_S: 15 in flight, then 60


def schedule(before_s: float, step_s: float) -> list[Request]:
    """Evenly spaced, one rate after the other."""
    before = [number / BEFORE_RPS for number in range(int(before_s * BEFORE_RPS))]
    step = [before_s + number / STEP_RPS for number in range(int(step_s * STEP_RPS))]
    return [Request(f"r{number}", at_s) for number, at_s in enumerate([*before, *step])]


def send_step(
    url: str, network: str, directory: Path, before_s: float, step_s: float
) -> tuple[subprocess.Popen[bytes], Path]:
    """The process that sends it to the agent `web`, and the file of the outcomes."""
    planned, out = directory / "schedule.jsonl", directory / "outcomes.jsonl"
    out.unlink(missing_ok=True)  # of the step before
    write_schedule(planned, schedule(before_s, step_s))
    command = [sys.executable, "-m", "bench.load", "--target", f"{url}/web/", "--schedule", str(planned)]
    command += ["--out", str(out), "--allow-network", network]
    return subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.DEVNULL), out


def back_to_one(fleet: LiveFleet) -> None:
    """The agent `web` after it, at one replica and free again, as if nothing had been."""
    fleet.pin("web", 1)
    fleet.wait_for("web", lambda agent: len(agent.replicas) == 1 and agent.ready == 1)
    time.sleep(2.0)  # what the windows remember of the load
    fleet.pin("web", None)
    fleet.wait_for("web", lambda agent: agent.pin is None and agent.desired == 1)
