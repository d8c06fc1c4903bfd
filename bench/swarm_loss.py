"""On a Swarm, under load: a node that is killed, and changes of version, against what plain Swarm loses with them.

    python -m bench.swarm_loss [--changes 50] [--kills 3]

Ours is asked at a surviving node's gateway; plain Swarm's service by its name's addresses (`dnsrr`) from a container on
the same node. Each request is sent once, and has 10 s. Exits 1 if one of ours failed that may be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from bench.load import read_outcomes
from bench.loss import by_kind, count, failed, mixed_load
from bench.swarm_fleet import SwarmFleet, on_swarm
from bench.swarm_plain import Plain, plain_service
from testbed.swarm import life
from testbed.swarm import node as machine

RATE, UNSAFE_RATE = 50, 10
REPLICAS = 6
_BEFORE_S, _AFTER_S = 5.0, 30.0

Inject = Callable[[SwarmFleet, Plain, int], Awaitable[None]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.swarm_loss", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--kills", type=int, default=3)
    arguments = parser.parse_args()
    print("| under load | times | GETs | failed | POSTs | failed | plain Swarm | failed |\n" + "|---" * 8 + "|")
    with on_swarm("bench-loss") as fleet:
        fleet.write(_spec(fleet, 0))
        fleet.shoal("up", "-d", "-y", timeout_s=180)
        held = asyncio.run(_run(fleet, "a node killed", arguments.kills, _kill))
        held &= asyncio.run(_run(fleet, "another version", arguments.changes, _change))
    return 0 if held else 1


def _spec(fleet: SwarmFleet, version: int) -> dict[str, object]:
    return fleet.agent_spec(
        scale={"min": REPLICAS, "max": REPLICAS}, idempotent=["GET"], environment={"VERSION": f"{version}"}
    )


async def _run(fleet: SwarmFleet, what: str, times: int, inject: Inject) -> bool:
    """One row of the table; whether none failed that may be repeated."""
    async with plain_service(fleet, REPLICAS) as plain:
        await plain.start_client(RATE + UNSAFE_RATE)
        out = fleet.directory / f"outcomes-{time.monotonic_ns()}.jsonl"
        with mixed_load(fleet.url, [f"{fleet.bed.network}.0/24"], RATE, UNSAFE_RATE, out):
            await asyncio.sleep(_BEFORE_S)
            for number in range(1, times + 1):
                await inject(fleet, plain, number)
            await asyncio.sleep(_BEFORE_S)
        theirs = plain.outcomes()
    safe, unsafe = by_kind(read_outcomes(out)[1])
    cells = [each for outcomes in (safe, unsafe, theirs) for each in (count(outcomes), failed(outcomes))]
    print(f"| {what} | {times} | {' | '.join(cells)} |", flush=True)
    return safe.keys() == {"ok"}


async def _kill(fleet: SwarmFleet, plain: Plain, number: int) -> None:
    """The last node, with all that runs there; it comes back, and both have their replicas again."""
    node = fleet.bed.nodes()[-1]
    await asyncio.to_thread(machine.kill, node)
    await asyncio.sleep(_AFTER_S)
    await asyncio.to_thread(_heal, fleet)
    await plain.settled(REPLICAS)
    await asyncio.to_thread(fleet.wait_for, "web", lambda agent: agent.ready == REPLICAS, 120.0)


def _heal(fleet: SwarmFleet) -> None:
    with life.held(fleet.bed):
        life.up(fleet.bed, None)


async def _change(fleet: SwarmFleet, plain: Plain, number: int) -> None:
    """Ours by the file and `up -d`, theirs by `docker service update`, at the same time."""
    fleet.write(_spec(fleet, number))
    ours = asyncio.to_thread(fleet.shoal, "up", "-d", "-y", timeout_s=180)
    await asyncio.gather(ours, plain.change(number, REPLICAS))


if __name__ == "__main__":
    sys.exit(main())
