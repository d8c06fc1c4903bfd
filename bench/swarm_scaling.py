"""On a Swarm: from a step of load to the first new replica, and from 3 replicas to 10, against Swarm's own time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from bench.live_fleet import HERE
from bench.load import Request, read_outcomes, summarize, write_schedule
from bench.row import Goal, Row
from bench.swarm_fleet import SwarmFleet, on_swarm
from bench.swarm_plain import Plain, plain_service

TARGET = 20  # requests in flight a replica
SERVICE_S = 0.4
BEFORE_RPS, STEP_RPS = 38, 150  # times SERVICE_S: 15 in flight, then 60
BEFORE_S, STEP_S = 3.0, 8.0
FEW, MANY = 3, 10
_QUIET_S = 10.0  # a network that was just removed holds Swarm up for seconds, whoever starts something next


def run(quick: bool) -> list[Row]:
    """Ours and Swarm's own in turns."""
    turns = 2 if quick else 5
    with on_swarm("bench-swarm") as fleet:
        scale = {"min": 1, "max": 4, "target": {"concurrency": TARGET}}
        fleet.write(fleet.agent_spec(scale=scale, environment={"SERVICE_S": f"{SERVICE_S}"}))
        fleet.shoal("up", "-d", "-y", timeout_s=180)
        steps = [(_step(fleet), asyncio.run(_starts(fleet))) for _ in range(turns)]
        fleet.write(fleet.agent_spec(scale={"min": FEW, "max": MANY}))
        fleet.shoal("up", "-d", "-y", timeout_s=180)
        grown = [(_grow(fleet), asyncio.run(_grows(fleet))) for _ in range(turns)]
    return [
        Row(
            "swarm", "step load to the first new replica serving", "s",
            ours=tuple(ours for ours, _ in steps), baseline=tuple(plain for _, plain in steps),
            compare="difference", goal=Goal(1.0), note="baseline: one more by `docker service scale`, until it serves",
        ),
        Row(
            "swarm", f"scale {FEW} to {MANY}", "s",
            ours=tuple(ours for ours, _ in grown), baseline=tuple(plain for _, plain in grown),
            compare="ratio", goal=Goal(1.3), note="until the last one says it serves; baseline: `docker service scale`",
        ),
    ]  # fmt: skip


def _step(fleet: SwarmFleet) -> float:
    """Seconds from the step to the first word of a new replica; then the fleet is back at one."""
    began = time.monotonic()
    load, out = _send(fleet)
    with load:
        until = began + BEFORE_S + STEP_S + 5.0
        while not (said := fleet.sink.of("ours", began + BEFORE_S)) and time.monotonic() < until:
            time.sleep(0.02)
        load.wait(60)
    started_at, outcomes = read_outcomes(out)
    failed = summarize(outcomes).failed
    if not said or failed:
        raise RuntimeError(f"{failed} failed requests, {len(said)} new replicas: {fleet.agent('web')}")
    at_s = started_at + BEFORE_S - time.time() + time.monotonic()
    fleet.pin("web", 1)
    fleet.wait_for("web", lambda agent: len(agent.replicas) == 1 and agent.ready == 1)
    time.sleep(2.0)  # what the windows remember of the load
    fleet.pin("web", None)
    fleet.wait_for("web", lambda agent: agent.pin is None and agent.desired == 1)
    return said[0][0] - at_s


def _send(fleet: SwarmFleet) -> tuple[subprocess.Popen[bytes], Path]:
    planned, out = fleet.directory / "schedule.jsonl", fleet.directory / "outcomes.jsonl"
    before = [i / BEFORE_RPS for i in range(int(BEFORE_S * BEFORE_RPS))]
    step = [BEFORE_S + i / STEP_RPS for i in range(int(STEP_S * STEP_RPS))]
    write_schedule(planned, [Request(f"r{number}", at_s) for number, at_s in enumerate([*before, *step])])
    command = [sys.executable, "-m", "bench.load", "--target", f"{fleet.url}/web/", "--schedule", str(planned)]
    command += ["--out", str(out), "--allow-network", f"{fleet.bed.network}.0/24"]
    return subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.DEVNULL), out


async def _starts(fleet: SwarmFleet) -> float:
    """Seconds that Swarm itself takes from one replica to a second one that serves."""
    async with plain_service(fleet, 1) as plain:
        return await _scaled(plain, 1, 2)


async def _grows(fleet: SwarmFleet) -> float:
    async with plain_service(fleet, FEW) as plain:
        return await _scaled(plain, FEW, MANY)


async def _scaled(plain: Plain, few: int, many: int) -> float:
    await plain.settled(few)
    await asyncio.sleep(_QUIET_S)
    began = time.monotonic()
    await plain.scale(many)
    return await plain.served(many - few, began) - began


def _grow(fleet: SwarmFleet) -> float:
    """Seconds from the command to the word of the last replica."""
    time.sleep(_QUIET_S)
    began = time.monotonic()
    fleet.pin("web", MANY)
    fleet.wait_for("web", lambda agent: agent.ready == MANY)
    last_at_s, _ = fleet.sink.of("ours", began)[MANY - FEW - 1]
    fleet.pin("web", FEW)
    fleet.wait_for("web", lambda agent: len(agent.replicas) == FEW and agent.ready == FEW)
    return last_at_s - began
