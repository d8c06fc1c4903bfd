"""On Kubernetes, under load: changes of version, and a node that is killed, against what a plain Service loses.

    python -m bench.kubernetes_loss [--changes 50] [--plain-changes 5] [--kills 3]

A change: 100 requests a second to a NodePort, of Shoal's gateways and then of a plain Service, whose pods end at once
or sleep 3 s before (`preStop`). A killed node: 60 a second at a surviving gateway, and as many to the plain Service at
a surviving node, at the same time. Each request is sent once, and has 10 s. Exits 1 if one of ours failed that may be
repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path

from bench.kubernetes_fleet import AGENT, KubernetesFleet, on_kubernetes
from bench.kubernetes_plain import NODE_PORT, Plain, Program, plain_service
from bench.load import read_outcomes
from bench.loss import by_kind, count, failed, mixed_load
from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.names import ROLE, Role
from shoal.engines.kubernetes.render_own import PUBLIC_PORT
from testbed.kubernetes import life
from testbed.swarm import node as machine
from testbed.swarm.life import held

RATE, UNSAFE_RATE = 90, 10
KILL_RATE, KILL_UNSAFE_RATE = 50, 10
REPLICAS = 4
_BEFORE_S, _AFTER_S = 5.0, 60.0  # a node is called lost after 47 s


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.kubernetes_loss", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--plain-changes", type=int, default=5)
    parser.add_argument("--kills", type=int, default=3)
    arguments = parser.parse_args()
    print("| under load | times | whose | GETs | failed | POSTs | failed |\n" + "|---" * 7 + "|")
    with on_kubernetes("bench-loss") as fleet:
        fleet.write(_agents(fleet, 0))
        fleet.shoal("up", "-d", "-y", timeout_s=180)
        safe = asyncio.run(_changes(fleet, arguments.changes, arguments.plain_changes))
        safe &= asyncio.run(_kills(fleet, arguments.kills))
    return 0 if safe else 1


def _agents(fleet: KubernetesFleet, version: int) -> dict[str, object]:
    environment = {"VERSION": f"{version}"}
    return {"web": fleet.agent_spec(scale=REPLICAS, idempotent=["GET"], environment=environment)}


async def _changes(fleet: KubernetesFleet, ours: int, plains: int) -> bool:
    """One after the other, as they would disturb each other; whether none of ours failed that may be repeated."""

    async def change(number: int) -> None:
        fleet.write(_agents(fleet, number))
        await asyncio.to_thread(fleet.shoal, "up", "-d", "-y", timeout_s=180)

    what, found = "another version", _Tally()
    if ours:
        with _load(fleet, fleet.url, RATE, UNSAFE_RATE, found):
            await _repeat(change, ours)
        found.show(what, ours, "Shoal")
    for leaves_s, whose in ((0, "plain"), (3, "plain, `preStop` 3 s")) if plains else ():
        program, theirs = Program(fleet.image, AGENT, leaves_s=leaves_s), _Tally()
        async with plain_service(fleet.place.access(), program, REPLICAS) as plain:
            with _load(fleet, _plain_url(fleet), RATE, UNSAFE_RATE, theirs):
                await _repeat(plain.change, plains)
        theirs.show(what, plains, whose)
    return found.none_lost


async def _kills(fleet: KubernetesFleet, kills: int) -> bool:
    """Likewise of nodes."""
    found, theirs = _Tally(), _Tally()
    if not kills:
        return True
    async with plain_service(fleet.place.access(), Program(fleet.image, AGENT), REPLICAS) as plain:
        for _ in range(kills):
            ours = await _surviving_gateway(fleet)
            with (
                _load(fleet, ours, KILL_RATE, KILL_UNSAFE_RATE, found),
                _load(fleet, _plain_url(fleet), KILL_RATE, KILL_UNSAFE_RATE, theirs),
            ):
                await _repeat(lambda _: _kill(fleet), 1)
            await _heal(fleet, plain)
    found.show("a node killed", kills, "Shoal")
    theirs.show("a node killed", kills, "plain")
    return found.none_lost


async def _kill(fleet: KubernetesFleet) -> None:
    """The last node, with all that runs there."""
    await asyncio.to_thread(machine.kill, fleet.bed.nodes()[-1])
    await asyncio.sleep(_AFTER_S)


async def _heal(fleet: KubernetesFleet, plain: Plain) -> None:
    """The node comes back, and both have their replicas again: with no load, as its start takes the whole machine."""

    def boot() -> None:
        with held(fleet.bed):
            life.up(fleet.bed, None)

    await asyncio.to_thread(boot)
    await plain.settled()
    await asyncio.to_thread(fleet.wait_for, "web", lambda agent: agent.ready == REPLICAS, 120.0)


async def _surviving_gateway(fleet: KubernetesFleet) -> str:
    """One on the first node: there are two where the last node killed had the other."""
    async with fleet.place.kubernetes() as kubernetes:
        pods, _ = await kubernetes.list(POD, {ROLE: Role.GATEWAY.value})
    first = fleet.bed.node(1).name
    staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    address, *_ = (pod["status"]["podIP"] for pod in staying if pod["spec"]["nodeName"] == first)
    return f"http://{address}:{PUBLIC_PORT}"


def _plain_url(fleet: KubernetesFleet) -> str:
    return f"http://{fleet.bed.node(1).address}:{NODE_PORT}"


class _Tally:
    """What came of loads that have ended."""

    def __init__(self) -> None:
        self._safe, self._unsafe = Counter[str](), Counter[str]()

    @property
    def none_lost(self) -> bool:
        """Of those that may be repeated."""
        return self._safe.keys() <= {"ok"}

    def take(self, out: Path) -> None:
        safe, unsafe = by_kind(read_outcomes(out)[1])
        self._safe += safe
        self._unsafe += unsafe

    def show(self, what: str, times: int, whose: str) -> None:
        """Prints a row of the table."""
        cells = [each for outcomes in (self._safe, self._unsafe) for each in (count(outcomes), failed(outcomes))]
        print(f"| {what} | {times} | {whose} | {' | '.join(cells)} |", flush=True)


@contextlib.contextmanager
def _load(fleet: KubernetesFleet, url: str, rate: int, unsafe_rate: int, tally: _Tally) -> Generator[None]:
    """Until the block ends; then the tally has it."""
    out = fleet.directory / f"outcomes-{time.monotonic_ns()}.jsonl"
    with mixed_load(url, [f"{fleet.bed.network}.0/24", fleet.bed.pods], rate, unsafe_rate, out):
        yield
    tally.take(out)


async def _repeat(inject: Callable[[int], Awaitable[None]], times: int) -> None:
    await asyncio.sleep(_BEFORE_S)
    for number in range(1, times + 1):
        await inject(number)
    await asyncio.sleep(_BEFORE_S)


if __name__ == "__main__":
    sys.exit(main())
