"""On a Swarm: from a step of load to the first new replica, and from 3 replicas to 10, against Swarm's own time."""

from __future__ import annotations

import asyncio
import time

from bench.load import read_outcomes, summarize
from bench.row import Goal, Row
from bench.step_load import SCALE, SERVICE_S, back_to_one, send_step
from bench.swarm_fleet import SwarmFleet, on_swarm
from bench.swarm_plain import Plain, plain_service

BEFORE_S, STEP_S = 3.0, 8.0
FEW, MANY = 3, 10
_QUIET_S = 10.0  # a network that was just removed holds Swarm up for seconds, whoever starts something next


def run(quick: bool) -> list[Row]:
    """Ours and Swarm's own in turns."""
    turns = 2 if quick else 5
    with on_swarm("bench-swarm") as fleet:
        fleet.write(fleet.agent_spec(scale=SCALE, environment={"SERVICE_S": f"{SERVICE_S}"}))
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
    load, out = send_step(fleet.url, f"{fleet.bed.network}.0/24", fleet.directory, BEFORE_S, STEP_S)
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
    back_to_one(fleet)
    return said[0][0] - at_s


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
