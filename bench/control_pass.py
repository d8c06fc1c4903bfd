"""What one pass of the control loop costs: 1,000 agents, 10,000 replicas, on the memory engine.

    python -m bench.control_pass [--agents 1000] [--replicas 10] [--rounds 5]

A busy pass has 5 % of the agents change their count: new statistics, decision, reconciliation, snapshot and its diff,
the gateway's rendering of what changed, and the write to a SQLite file on disk are all in it. A quiet one has no change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from shoal.control.controller import Controller, Parts
from shoal.control.sqlite_store import open_store
from shoal.core.routing import LATENCY_BOUNDS_MS, Traffic
from shoal.engines.memory.behaviour import Behaviour
from shoal.engines.memory.engine import MemoryEngine
from shoal.engines.memory.platform import MemoryPlatform
from shoal.proxy.memory import MemoryGateways
from shoal.proxy.render import Renderer
from shoal.spec.model import Fleet


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def fleet_of(agents: int, replicas: int) -> Fleet:
    """So many services, each of so many replicas and with room for twice as many."""
    spec = {
        "command": "serve $PORT",
        "port": 8000,
        "calls": [],
        "scale": {"min": replicas, "max": replicas * 2, "target": {"concurrency": 20}},
    }
    return Fleet.model_validate({"fleet": "bench", "agents": {f"agent-{i:04d}": spec for i in range(agents)}})


def traffic(active: int, requests: int) -> Traffic:
    """Statistics as a gateway gives them."""
    counts = tuple(requests if bound >= 50 else 0 for bound in LATENCY_BOUNDS_MS)
    return Traffic(active=active, requests=requests, healthy=10, latency_counts=counts)


async def measure(agents: int, replicas: int, rounds: int) -> dict[str, float]:
    """Medians in milliseconds, and the peak of resident memory in MB."""
    clock = Clock()
    engine = MemoryEngine(clock, behaviour=Behaviour(start_s=0.0))
    gateways = MemoryGateways()
    fleet = fleet_of(agents, replicas)
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(Path(folder) / "state.db") as store:
            await store.write_fleet(fleet, directory=".", by="bench", at=clock(), expected_generation=0)
            controller = Controller(
                Parts(engine, engine, MemoryPlatform(), gateways, store, _no_queues, clock, lambda name: name)
            )
            await controller.take_over()
            await settle(controller, clock, engine)
            renderer = Renderer()
            snapshot = gateways.pushed
            renderer.render(snapshot)
            busy, quiet = [], []
            for index in range(rounds):
                chosen = [f"agent-{(index * 37 + i * 19) % agents:04d}" for i in range(agents // 20)]
                gateways.set_traffic({name: traffic(20 * (replicas + 2), 1000 * (index + 1)) for name in chosen})
                clock.now += 0.2
                started = time.perf_counter()
                await controller.run_pass()
                renderer.render(gateways.pushed)
                busy.append(time.perf_counter() - started)
                await settle(controller, clock, engine)
                gateways.set_traffic({name: traffic(20 * replicas, 1000 * (index + 1)) for name in chosen})
                await settle(controller, clock, engine)
                clock.now += 0.001
                started = time.perf_counter()
                await controller.run_pass()
                quiet.append(time.perf_counter() - started)
    return {
        "agents": agents,
        "replicas": agents * replicas,
        "busy_ms": statistics.median(busy) * 1000,
        "quiet_ms": statistics.median(quiet) * 1000,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def settle(controller: Controller, clock: Clock, engine: MemoryEngine) -> None:
    """Passes until nothing moves, with time enough between them for replicas to start."""
    for _ in range(40):
        clock.now += 1.0
        engine.tick(); controller.look()
        await controller.run_pass()


async def _no_queues(admin_url: str, fleet: str):
    raise AssertionError("this fleet has no queue")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    result = asyncio.run(measure(arguments.agents, arguments.replicas, arguments.rounds))
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
