"""What Envoy counts, as `Traffic` by agent: cheap scrapes of its admin interface.

Gauges and counters are asked for five times a second. Histograms are large and Envoy merges them once a second, so
they are asked for once a second, and only those of agents whose counts moved lately.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from shoal.core.routing import Traffic
from shoal.errors import GatewayError
from shoal.proxy.admin import Admin
from shoal.proxy.render_bootstrap import FLUSH_S

log = logging.getLogger(__name__)

INTERVAL_S = 0.2
_LATELY_S = 2 * FLUSH_S + INTERVAL_S  # a request that just ended is in the histogram after the next merge
_NAMED = 50  # more agents than this are asked for all together
_STAT = re.compile(r"^cluster\.agent-(.+)\.([a-z0-9_]+)$")
_COUNTS = "(upstream_rq_(active|pending_active|completed|5xx)|membership_healthy)$"
_NOTHING = Traffic()

Counts = tuple[int, int, int, int]  # active, requests, failures, healthy


class Statistics:
    """`traffic` is by agent, each the same object while nothing changed; `on_change` is called when it did."""

    def __init__(self, admin: Admin, on_change: Callable[[], None]) -> None:
        self._admin = admin
        self._on_change = on_change
        self._counts: dict[str, Counts] = {}
        self._latencies: dict[str, tuple[int, ...]] = {}
        self._moved: dict[str, float] = {}
        self._asked = 0.0
        self.traffic: dict[str, Traffic] = {}

    async def run(self) -> None:
        """Scrapes until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await self._scrape(began)
            except (GatewayError, ValueError) as error:
                log.debug("no statistics: %s", error)
                self._rest()
            await asyncio.sleep(max(INTERVAL_S / 2, INTERVAL_S - (time.monotonic() - began)))

    async def _scrape(self, now: float) -> None:
        counts = parse_counts(await self._admin.get(f"/stats?format=json&usedonly&filter={quote(_COUNTS)}"))
        for agent, found in counts.items():
            if self._counts.get(agent) != found:
                self._moved[agent] = now
        changed = {agent for agent in {*counts, *self._counts} if counts.get(agent) != self._counts.get(agent)}
        self._counts = counts
        if self._moved and now - self._asked >= FLUSH_S:
            self._asked = now
            found = parse_latencies(await self._admin.get(_latency_target(self._moved)))
            changed |= {agent for agent, buckets in found.items() if self._latencies.get(agent) != buckets}
            self._latencies.update(found)
            self._moved = {agent: at for agent, at in self._moved.items() if now - at < _LATELY_S}
        self._put(changed)

    def _rest(self) -> None:
        """Envoy does not answer: nothing is active or healthy, and the counts are what they were."""
        self._counts = {agent: (0, counts[1], counts[2], 0) for agent, counts in self._counts.items()}
        self._put(set(self._counts))

    def _put(self, agents: Iterable[str]) -> None:
        changed = False
        for agent in agents:
            if agent not in self._counts:  # the cluster is gone
                self._latencies.pop(agent, None)
                changed |= self.traffic.pop(agent, None) is not None
                continue
            active, requests, failures, healthy = self._counts[agent]
            traffic = Traffic(
                active=active,
                requests=requests,
                failures=failures,
                healthy=healthy,
                latency_counts=self._latencies.get(agent, ()),
            )
            if self.traffic.get(agent, _NOTHING) != traffic or agent not in self.traffic:
                self.traffic[agent] = traffic
                changed = True
        if changed:
            self._on_change()


def parse_counts(body: bytes) -> dict[str, Counts]:
    """By agent. A statistic that Envoy leaves out was never used: it is zero."""
    values: dict[str, dict[str, int]] = {}
    for stat in json.loads(body)["stats"]:
        match = _STAT.match(stat.get("name", ""))
        if match:
            values.setdefault(match[1], {})[match[2]] = int(stat["value"])
    return {agent: _counts(found) for agent, found in values.items()}


def _counts(found: Mapping[str, int]) -> Counts:
    return (
        found.get("upstream_rq_active", 0) + found.get("upstream_rq_pending_active", 0),
        found.get("upstream_rq_completed", 0),
        found.get("upstream_rq_5xx", 0),
        found.get("membership_healthy", 0),
    )


def parse_latencies(body: bytes) -> dict[str, tuple[int, ...]]:
    """By agent: cumulative counts at `LATENCY_BOUNDS_MS`, the bounds that Envoy was told."""
    latencies: dict[str, tuple[int, ...]] = {}
    for stat in json.loads(body)["stats"]:
        if "histograms" not in stat:
            continue
        for histogram in stat["histograms"]:
            match = _STAT.match(histogram["name"])
            if match:
                buckets: list[dict[str, Any]] = histogram["buckets"]
                latencies[match[1]] = tuple(int(bucket["cumulative"]) for bucket in buckets)
    return latencies


def _latency_target(agents: Mapping[str, float]) -> str:
    names = _clusters(agents) if len(agents) <= _NAMED else ""
    return f"/stats?format=json&usedonly&histogram_buckets=cumulative&filter={quote(f'{names}upstream_rq_time$')}"


def _clusters(agents: Iterable[str]) -> str:
    return rf"^cluster\.agent-({'|'.join(re.escape(agent) for agent in sorted(agents))})\."
