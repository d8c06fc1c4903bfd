"""On a Swarm, under load: a node that is killed, and changes of version, against what plain Swarm loses with them.

    python -m bench.swarm_loss [--changes 50] [--kills 3]

Ours is asked at a surviving node's gateway; plain Swarm's service by its name's addresses (`dnsrr`) from a container on
the same node. Each request is sent once, and has 10 s. Exits 1 if one of ours failed that may be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import asdict
from pathlib import Path

from bench.live_fleet import HERE
from bench.load import Request, read_outcomes
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
        with _load(fleet) as out:
            await asyncio.sleep(_BEFORE_S)
            for number in range(1, times + 1):
                await inject(fleet, plain, number)
            await asyncio.sleep(_BEFORE_S)
        theirs = plain.outcomes()
    by_kind: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for outcome in read_outcomes(out)[1]:
        by_kind[outcome.idempotent][outcome.outcome] += 1
    cells = [_count(by_kind[True]), _failed(by_kind[True]), _count(by_kind[False]), _failed(by_kind[False])]
    print(f"| {what} | {times} | {' | '.join(cells)} | {_count(theirs)} | {_failed(theirs)} |", flush=True)
    return by_kind[True].keys() == {"ok"}


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


@contextlib.contextmanager
def _load(fleet: SwarmFleet) -> Generator[Path]:
    """Requests on time until the block ends; then all outcomes are in the file."""
    out = fleet.directory / f"outcomes-{time.monotonic_ns()}.jsonl"
    command = [sys.executable, "-m", "bench.load", "--target", fleet.url, "--schedule", "/dev/stdin", "--out", str(out)]
    command += ["--max-requests", "10000000", "--max-seconds", "14400", "--timeout", "10"]
    command += ["--allow-network", f"{fleet.bed.network}.0/24"]
    load = subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    threading.Thread(target=_feed, args=(load,), daemon=True).start()
    try:
        yield out
        if load.poll() is not None:
            raise RuntimeError(f"the load ended before its time, with {load.returncode}")
    finally:
        load.terminate()  # it waits for what it sent
        load.wait(60)


def _feed(load: subprocess.Popen[bytes]) -> None:
    assert load.stdin is not None
    every = (RATE + UNSAFE_RATE) // UNSAFE_RATE
    with contextlib.suppress(BrokenPipeError, ValueError), load.stdin as pipe:
        for number in itertools.count():
            method = "POST" if number % every == 0 else "GET"
            headers = {"Connection": "close"} if number % 2 else {}
            at_s = number / (RATE + UNSAFE_RATE)
            request = Request(f"r{number}", at_s, method, f"/web/{number}", "", headers, idempotent=method == "GET")
            pipe.write(json.dumps(asdict(request)).encode() + b"\n")


def _count(outcomes: Mapping[str, int]) -> str:
    return f"{sum(outcomes.values()):,}"


def _failed(outcomes: Mapping[str, int]) -> str:
    bad = {name: count for name, count in sorted(outcomes.items()) if name != "ok"}
    kinds = ", ".join(f"{name} {count}" for name, count in bad.items())
    return f"{sum(bad.values())} ({kinds})" if bad else "0"


if __name__ == "__main__":
    sys.exit(main())
