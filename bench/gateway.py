"""What the gateway's features cost a request: Shoal's Envoy against one configured by hand, before the same upstream.

Shoal's has what every fleet gets: a path that is stripped, retries, breakers, health checks, outlier detection,
statistics that are read five times a second.
"""

from __future__ import annotations

import sys

from bench.closed_loop import CONNECTIONS, load_tool, requests_per_s
from bench.live_fleet import HERE, LiveFleet, running
from bench.machine import versions
from bench.plain_envoy import plain_envoy
from bench.row import Goal, Row
from shoal.proxy.gateway import GatewayOptions

_GOAL = Goal(0.95, most=False)


def run(quick: bool) -> list[Row]:
    """Turns of ours, the baseline, and the upstream with no proxy at all."""
    turns, seconds = (3, 2.0) if quick else (9, 5.0)
    command = [sys.executable, str(HERE / "upstream.py"), "$PORT", "."]
    agents = {
        "bench": {"command": command, "port": 8000, "public": "/bench", "health": "/healthz"},
        "root": {"command": command, "port": 8000, "public": "/", "health": "/healthz"},
    }
    concurrency = GatewayOptions.__dataclass_fields__["concurrency"].default
    with running("bench-gateway", agents) as fleet:
        return [_measure(fleet, agent, path, turns, seconds, concurrency)
                for agent, path in (("bench", "/bench/"), ("root", "/"))]  # fmt: skip


def _measure(fleet: LiveFleet, agent: str, path: str, turns: int, seconds: float, concurrency: int) -> Row:
    host, _, port = (fleet.agent(agent).replicas[0].address or "").rpartition(":")
    ours: list[float] = []
    baseline: list[float] = []
    direct: list[float] = []
    with plain_envoy((host, int(port)), concurrency) as plain:
        for url in (f"{fleet.url}{path}", f"http://127.0.0.1:{plain}/"):  # connections and caches are there
            requests_per_s(url, 1.0)
        for turn in range(turns):
            pair = [(ours, f"{fleet.url}{path}"), (baseline, f"http://127.0.0.1:{plain}/")]
            for figures, url in pair if turn % 2 == 0 else reversed(pair):
                figures.append(requests_per_s(url, seconds))
            direct.append(requests_per_s(f"http://{host}:{port}/", seconds / 2))
    upstream = "nginx" if "nginx" in versions() else "asyncio (nginx is missing: apt-get install nginx)"
    return Row(
        bench="gateway",
        what=f"requests/s, public: {path.rstrip('/') or '/'}",
        unit="/s",
        ours=tuple(ours),
        baseline=tuple(baseline),
        compare="ratio",
        goal=_GOAL,
        note=f"{load_tool()}, {CONNECTIONS} connections, {upstream} behind it, {concurrency} threads each; "
        f"with no proxy {sorted(direct)[len(direct) // 2]:,.0f} /s",
        details={"direct": direct, "seconds": seconds},
    )
