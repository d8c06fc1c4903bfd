"""What people wait for at the prompt: the help, and the check of a file of 1,000 agents; against Python's own start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.live_fleet import SHOAL, temporary_directory
from bench.row import Goal, Row

AGENTS = 1000


def run(quick: bool) -> list[Row]:
    """Wall time of whole commands, in turns with `python -c pass`."""
    turns = 5 if quick else 20
    with temporary_directory() as directory:
        (directory / "shoal.yaml").write_text(large_file(AGENTS))
        return [
            _measure(directory, ["--help"], "shoal --help", Goal(120.0), turns),
            _measure(directory, ["validate"], f"shoal validate, {AGENTS:,} agents", Goal(1200.0), turns),
        ]


def _measure(directory: Path, arguments: list[str], what: str, goal: Goal, turns: int) -> Row:
    ours_argv, base_argv = [str(SHOAL), *arguments], [sys.executable, "-c", "pass"]
    for argv in (ours_argv, base_argv):  # the disk's cache, and compiled modules
        _wall_ms(argv, directory)
    ours: list[float] = []
    baseline: list[float] = []
    for _ in range(turns):
        ours.append(_wall_ms(ours_argv, directory))
        baseline.append(_wall_ms(base_argv, directory))
    return Row("cli", what, "ms", tuple(ours), goal, tuple(baseline), note="the baseline is `python -c pass`")


def _wall_ms(argv: list[str], directory: Path) -> float:
    began = time.perf_counter()
    subprocess.run(argv, cwd=directory, env={**os.environ, "SHOAL_HOME": str(directory / "home")},
                   capture_output=True, timeout=60, check=True)  # fmt: skip
    return (time.perf_counter() - began) * 1000


def large_file(agents: int) -> str:
    """A fleet of so many services, written as people write it."""
    lines = ["fleet: large", "environment: {LOG_LEVEL: info}", "agents:"]
    for number in range(agents):
        lines += [
            f"  agent-{number:04d}:                 # one of many",
            f"    command: [python, -m, agents.n{number:04d}, --port, $PORT]",
            "    port: 8000",
            f"    public: /agents/{number:04d}",
            "    health: /healthz",
            "    environment:",
            f'      MODEL: "model-{number % 7}"',
            "    resources: {cpu: 250m, memory: 256Mi}",
            "    scale: {min: 1, max: 8, target: {concurrency: 20}}",
            f"    calls: [agent-{(number + 1) % agents:04d}]",
        ]
    return "\n".join(lines) + "\n"
