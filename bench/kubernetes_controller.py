"""On Kubernetes: what the controller of 1,000 agents with 3,000 pods costs, busy and idle.

Real code and a real API server; the nodes are simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass

import aiohttp

from bench.api_server import counted, requests
from bench.controller_metrics import Passes, passes_in
from bench.kubernetes_fleet import KubernetesFleet, on_kubernetes
from bench.kubernetes_many import AGENTS, NODES, name_of, simulated, write_many
from bench.row import Goal, Row
from shoal.api.client import Client
from shoal.api.kubernetes_line import KubernetesLine
from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.exec import open_command
from shoal.engines.kubernetes.names import CONTROLLER, LEADER
from testbed.kubernetes.api import Api

REPLICAS = 3
_CHANGING = 50
_UP_S = 600.0
_SETTLES_S = 20.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one stretch of time."""

    passes: Passes
    requests_per_s: float


def run(quick: bool) -> list[Row]:
    """One fleet; stretches of a minute."""
    with on_kubernetes("bench-many") as fleet, simulated(fleet.bed, NODES):
        write_many(fleet, REPLICAS)
        fleet.shoal("up", "-d", "-y", "--wait-timeout", "10m", timeout_s=_UP_S)
        turns = 1 if quick else 3
        with counted(Api(fleet.bed), fleet.name, CONTROLLER):
            idle = [_over(fleet, 20.0 if quick else 60.0, after_s=_SETTLES_S) for _ in range(turns)]
            busy = [_over(fleet, 20.0, changed_to=count) for count in [REPLICAS + 1, REPLICAS] * turns]
        peak_mb, now_mb = asyncio.run(_memory_mb(fleet))
    what = f"{AGENTS:,} agents, {AGENTS * REPLICAS:,} pods"
    passes = f"{sum(each.passes.count for each in busy):.0f} passes"
    return [
        Row(
            "kubernetes", f"{what}: longest pass, {_CHANGING} agents scaled at once", "ms",
            ours=tuple(each.passes.longest_at_most_s * 1000 for each in busy), goal=Goal(500.0), quantile=1.0,
            note=f"an upper bound, of the controller's histogram; {passes}",
        ),
        Row(
            "kubernetes", f"{what}: mean pass, {_CHANGING} agents scaled at once", "ms",
            ours=tuple(each.passes.mean_s * 1000 for each in busy),
        ),
        Row(
            "kubernetes", f"{what}: peak of the controller's memory", "MB", ours=(peak_mb,), goal=Goal(400.0),
            note=f"{now_mb:.0f} MB at the end",
        ),
        Row(
            "kubernetes", f"{what}: requests to the API server, idle", "/s",
            ours=tuple(each.requests_per_s for each in idle), goal=Goal(5.0),
            note="of both controllers, by the API server's own count",
        ),
    ]  # fmt: skip


def _over(fleet: KubernetesFleet, lasts_s: float, *, after_s: float = 0.0, changed_to: int | None = None) -> Cost:
    """What it costs for a time, in which some agents are given another count."""
    api = Api(fleet.bed)
    time.sleep(after_s)
    passes, asked, began = asyncio.run(_passes(fleet)), requests(api), time.monotonic()
    if changed_to is not None:
        fleet.ask(lambda client: _pin(client, changed_to))
    time.sleep(began + lasts_s - time.monotonic())
    took_s = time.monotonic() - began
    return Cost(asyncio.run(_passes(fleet)).since(passes), (requests(api) - asked) / took_s)


async def _pin(client: Client, count: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(_CHANGING):
            tasks.create_task(_pinned(client, number, count))


async def _pinned(client: Client, number: int, count: int) -> None:
    await client.scale(name_of(number), count)


async def _passes(fleet: KubernetesFleet) -> Passes:
    line = KubernetesLine(fleet.place.access(), fleet.name, fleet.name)
    route = await line.route()
    async with aiohttp.ClientSession(connector=route.connector) as session:
        asking = session.get(f"{route.url}{route.preface.path}/metrics", headers=dict(route.preface.headers))
        async with asking as answer:
            page = await answer.text()
            if answer.status != 200:
                raise RuntimeError(f"/metrics of the controller: found {answer.status}, expected 200: {page[:500]}")
            return passes_in(page)


async def _memory_mb(fleet: KubernetesFleet) -> tuple[float, float]:
    """Of the controller that acts: its peak, and what it has now."""
    async with fleet.place.kubernetes() as kubernetes:
        ((leader, *_), _) = await kubernetes.list(POD, {LEADER: "true"})
        argv = ["cat", "/proc/1/status"]
        async with (
            open_command(kubernetes, leader["metadata"]["name"], "shoal", argv, tty=False) as command,
            contextlib.aclosing(command.output()) as output,
        ):
            said = b"".join([piece async for _, piece in output]).decode()
    return memory_mb(said, "VmHWM"), memory_mb(said, "VmRSS")


def memory_mb(status: str, name: str) -> float:
    """Of what `/proc/PID/status` says. Raises ValueError where it does not."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise ValueError(f"expected {name} in\n{status}")
    return int(found[1]) / 1024
