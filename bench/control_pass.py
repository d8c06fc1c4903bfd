"""What one pass of the control loop costs: 1,000 agents, 10,000 replicas, memory engine, in a process of its own.

    python -m bench.control_pass [--agents 1000] [--replicas 10] [--rounds 9]

A busy pass has 5 % of the agents change their count. In it are: new statistics, decisions, reconciliation, the actions,
the snapshot, its difference and the bytes on the line, what the gateway process makes of them up to Envoy's encoded
resources, and the write to a SQLite file on disk. In a quiet one nothing changed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.live_fleet import HERE
from bench.row import Goal, Row, quantile
from shoal.control.controller import Controller
from shoal.control.parts import Parts, QueueBroker
from shoal.control.sqlite_store import open_store
from shoal.core.routing import LATENCY_BOUNDS_MS, Snapshot, Traffic
from shoal.engines.memory.engine import MemoryEngine
from shoal.engines.memory.platform import MemoryPlatform
from shoal.proxy.codec import Delta, diff, dumps, loads, patch
from shoal.proxy.memory import MemoryGateways
from shoal.proxy.messages import ASSIGNMENT, CLUSTER, LISTENER, ROUTES, Encoder
from shoal.proxy.render import Renderer
from shoal.spec.model import Fleet

_TARGET = 20
_GATEWAY = "bench"


def run(quick: bool) -> list[Row]:
    """Each figure is a pass; busy and quiet ones take turns."""
    argv = [sys.executable, "-m", "bench.control_pass", "--rounds", "5" if quick else "15"]
    ran = subprocess.run(argv, cwd=HERE.parent, capture_output=True, text=True, timeout=550, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    what = f"{found['agents']:,} agents, {found['replicas']:,} replicas"
    steps = ", ".join(f"{name} {quantile(each, 0.5):.0f}" for name, each in found["steps_ms"].items())
    return [
        Row("pass", f"{what}, 5 % changing", "ms", tuple(found["busy_ms"]), Goal(250.0),
            note=f"medians in ms: {steps}", details=found),
        Row("pass", f"{what}, nothing changing", "ms", tuple(found["quiet_ms"]), Goal(25.0)),
        Row("pass", f"{what}, peak of memory", "MB", (found["peak_mb"],), Goal(300.0),
            note=f"of which {found['imported_mb']:.0f} MB before there is a fleet"),
    ]  # fmt: skip


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class GatewaySide:
    """What the gateway's process does with a change, up to the bytes for Envoy."""

    def __init__(self) -> None:
        self._told: Snapshot | None = None
        self._has: Snapshot | None = None
        self._renderer, self._encoder = Renderer(), Encoder()
        self._version = 0

    def tell(self, snapshot: Snapshot) -> tuple[float, float]:
        """Seconds for the controller's part, and for the gateway's."""
        began = time.perf_counter()
        self._version += 1
        line = dumps(diff(self._told, snapshot, self._version))
        self._told = snapshot
        sent = time.perf_counter()
        self._has = patch(self._has, loads(Delta, line))
        rendered = self._renderer.render(self._has)
        for kind, values in (
            (CLUSTER, rendered.clusters), (ASSIGNMENT, rendered.assignments),
            (LISTENER, rendered.listeners), (ROUTES, rendered.routes),
        ):  # fmt: skip
            self._encoder.encode_all(kind, values)
        return sent - began, time.perf_counter() - sent


class Bed:
    """A controller on values, with its gateway's side, and the time."""

    def __init__(self, controller: Controller, engine: MemoryEngine, gateways: MemoryGateways, clock: Clock) -> None:
        self.controller, self.engine, self.gateways, self.clock = controller, engine, gateways, clock
        self.gateway = GatewaySide()

    @property
    def snapshot(self) -> Snapshot:
        assert self.gateways.snapshot is not None
        return self.gateways.snapshot

    async def settle(self, passes: int) -> None:
        """Passes with time enough between them for replicas to start, and for every window to forget."""
        for _ in range(passes):
            self.clock.now += 1.0
            self.engine.tick()
            self.controller.look()
            await self.controller.run_pass()
        self.gateway.tell(self.snapshot)

    async def busy(self, names: list[str], traffic: Traffic) -> dict[str, float]:
        """Milliseconds by step of a pass in which these agents' statistics changed so that their count does."""
        self.gateways.count(_GATEWAY, dict.fromkeys(names, traffic))
        await self.controller.run_pass()  # a count has weight in the mean only once time has passed over it
        self.gateways.count(_GATEWAY, dict.fromkeys(names, replace(traffic, requests=traffic.requests + 1)))
        self.clock.now += 1.0
        before = {name: self.controller.states[name].record.desired for name in names}
        began = time.perf_counter()
        await self.controller.run_pass()
        passed = time.perf_counter()
        self.engine.tick()
        self.controller.look()
        again = time.perf_counter()
        await self.controller.run_pass()  # the replicas are there: their endpoints go to the gateway
        second = time.perf_counter() - again
        sent, rendered = self.gateway.tell(self.snapshot)
        after = {name: self.controller.states[name].record.desired for name in names}
        if any(after[name] == before[name] for name in names):
            raise RuntimeError("expected each of these agents to change its count")
        steps = {"decide and act": passed - began, "take the replicas in": second, "difference": sent}
        return {name: seconds * 1000 for name, seconds in {**steps, "gateway": rendered}.items()}

    async def quiet(self) -> float:
        """Milliseconds of a pass in which nothing changed."""
        self.clock.now += 0.001
        began = time.perf_counter()
        await self.controller.run_pass()
        return (time.perf_counter() - began) * 1000


async def measure(agents: int, replicas: int, rounds: int) -> dict[str, Any]:
    """Milliseconds a pass, and megabytes."""
    imported = _peak_mb()
    clock = Clock()
    engine, gateways = MemoryEngine(clock), MemoryGateways(_GATEWAY)
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(Path(folder) / "state.db") as store:
            await store.write_fleet(fleet_of(agents, replicas), directory=".", by="bench", at=clock(),
                                    expected_generation=0)  # fmt: skip
            controller = Controller(Parts(engine, engine, MemoryPlatform(), gateways, store, _no_queues, clock))
            async with asyncio.TaskGroup() as controller.tasks:
                bed = Bed(controller, engine, gateways, clock)
                await controller.take_over()
                gateways.count(_GATEWAY, {name: Traffic(healthy=replicas) for name in fleet_names(agents)})
                await bed.settle(20)  # longer than the policies' period, in which the start counts as scaling up
                busy: list[float] = []
                quiet: list[float] = []
                steps: dict[str, list[float]] = {}
                share = agents // 20
                for index in range(rounds):  # other agents each time, so that each goes up once
                    names = fleet_names(agents)[index * share : (index + 1) * share]
                    took = await bed.busy(names, _traffic(_TARGET * (replicas + 3), replicas))
                    busy.append(sum(took.values()))
                    for name, value in took.items():
                        steps.setdefault(name, []).append(value)
                    gateways.count(_GATEWAY, dict.fromkeys(names, _traffic(_TARGET * (replicas + 3), replicas + 3)))
                    await bed.settle(8)
                    quiet.append(await bed.quiet())
    return {
        "agents": agents,
        "replicas": agents * replicas,
        "busy_ms": busy,
        "quiet_ms": quiet,
        "steps_ms": steps,
        "imported_mb": imported,
        "peak_mb": _peak_mb(),
    }


def fleet_of(agents: int, replicas: int) -> Fleet:
    """So many services, each of so many replicas and with room for twice as many."""
    spec = {
        "command": "serve $PORT",
        "port": 8000,
        "scale": {"min": replicas, "max": replicas * 2, "target": {"concurrency": _TARGET}},
    }
    return Fleet.model_validate({"fleet": "bench", "agents": dict.fromkeys(fleet_names(agents), spec)})


def fleet_names(agents: int) -> list[str]:
    """The agents, in order."""
    return [f"agent-{number:04d}" for number in range(agents)]


def _traffic(active: int, healthy: int) -> Traffic:
    counts = tuple(1000 if bound >= 50 else 0 for bound in LATENCY_BOUNDS_MS)
    return Traffic(active=active, requests=1000, healthy=healthy, latency_counts=counts)


def _peak_mb() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


async def _no_queues(_admin_url: str, _fleet: str) -> QueueBroker:
    raise AssertionError("this fleet has no queue")


def main() -> None:
    """Prints what `measure` gives as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    if arguments.rounds > 20:
        parser.error("--rounds: at most 20, as each has other agents")
    json.dump(asyncio.run(measure(arguments.agents, arguments.replicas, arguments.rounds)), sys.stdout, indent=2)


if __name__ == "__main__":
    main()
