"""The second Ctrl-C: what was told to end is ended now. The controller sees its processes go, and finishes."""

from __future__ import annotations

from pathlib import Path

from shoal.core.observed import Phase
from shoal.engines.local.process import kill_group
from shoal.engines.local.state import ReplicaState, load_life


def kill_stopping(directory: Path) -> int:
    """Kill the process groups of replicas that are stopping, and of runs; gives how many were asked for."""
    killed = 0
    for manifest in (directory / "agents").glob("*/lives/*/state.json"):
        life = load_life(manifest)
        if life is None or life.start is None or life.start.process is None:
            continue
        if isinstance(life, ReplicaState) and life.phase is not Phase.STOPPING:
            continue  # still serving: the gateway has to let go of it first, which takes no time worth hurrying
        kill_group(life.start.process)
        killed += 1
    return killed
