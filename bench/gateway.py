"""What the gateway's features cost a request: Shoal's Envoy against one configured by hand, before the same upstream.

Shoal's has what every fleet gets: a path that is stripped, retries, breakers, health checks, outlier detection,
statistics that are read five times a second. What it takes of the CPU for a request says the same thing with less
noise where the machine is shared: the rest of the CPU goes to the client, the upstream and others.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import psutil

from bench.closed_loop import CONNECTIONS, load_tool, requests_per_s
from bench.live_fleet import HERE, LiveFleet, running
from bench.machine import versions
from bench.plain_envoy import plain_envoy
from bench.row import Goal, Row, quantile
from shoal.proxy.gateway import GatewayOptions

_GOAL = Goal(0.95, most=False)


def run(quick: bool) -> list[Row]:
    """Turns of ours, the baseline, and the upstream with no proxy at all."""
    turns, seconds = (5, 1) if quick else (21, 2)
    command = [sys.executable, str(HERE / "upstream.py"), "$PORT", "."]
    agents = {
        "bench": {"command": command, "port": 8000, "public": "/bench", "health": "/healthz"},
        "root": {"command": command, "port": 8000, "public": "/", "health": "/healthz"},
    }
    rows: list[Row] = []
    with running("bench-gateway", agents) as fleet:
        for agent, path in (("bench", "/bench/"), ("root", "/")):
            rows += _measure(fleet, agent, path, turns, seconds)
    return rows


class Proxy:
    """One of the two: where it is asked, and what came of each turn."""

    def __init__(self, url: str, named: str) -> None:
        self.url, self._process = url, _envoy_of(named)
        self.rates: list[float] = []
        self.cpu_us: list[float] = []
        requests_per_s(url, 1)  # connections and caches are there

    def take_turn(self, seconds: int) -> None:
        before = self._process.cpu_times()
        rate = requests_per_s(self.url, seconds)
        after = self._process.cpu_times()
        self.rates.append(rate)
        self.cpu_us.append((after.user + after.system - before.user - before.system) / (rate * seconds) * 1e6)


def _measure(fleet: LiveFleet, agent: str, path: str, turns: int, seconds: int) -> list[Row]:
    host, _, port = (fleet.agent(agent).replicas[0].address or "").rpartition(":")
    threads = GatewayOptions.__dataclass_fields__["concurrency"].default
    direct: list[float] = []
    with plain_envoy((host, int(port)), threads) as plain:
        ours = Proxy(f"{fleet.url}{path}", str(fleet.directory))
        baseline = Proxy(f"http://127.0.0.1:{plain.port}/", str(plain.configuration))
        for turn in range(turns):
            for proxy in (ours, baseline) if turn % 2 == 0 else (baseline, ours):
                proxy.take_turn(seconds)
            if turn % 3 == 0:
                direct.append(requests_per_s(f"http://{host}:{port}/", 1))
    upstream = "nginx" if "nginx" in versions() else "asyncio (nginx is missing: apt-get install nginx)"
    note = (
        f"{load_tool()}, {CONNECTIONS} connections, {upstream} behind it, {threads} threads each; "
        f"with no proxy {quantile(direct, 0.5):,.0f} /s"
    )
    public = path.rstrip("/") or "/"
    return [
        Row("gateway", f"requests/s, public: {public}", "/s", tuple(ours.rates), _GOAL, tuple(baseline.rates), "ratio",
            note=note, details={"direct": direct, "seconds": seconds}),
        Row("gateway", f"Envoy's CPU a request, public: {public}", "µs", tuple(ours.cpu_us), None,
            tuple(baseline.cpu_us), "ratio"),
    ]  # fmt: skip


def _envoy_of(named: str) -> psutil.Process:
    """The Envoy whose command line names that path."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            argv = process.cmdline()
            if argv and Path(argv[0]).name == "envoy" and any(named in word for word in argv):
                return process
    raise RuntimeError(f"no Envoy runs with {named}")
