"""Merges the statistics of many gateways: pure, and incremental, so that quiet agents cost nothing.

Sums never fall: what a restarted Envoy or a lost gateway had counted stays in the sum. Otherwise a gateway that
reconnects would look like a burst of requests.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import zip_longest

from shoal.core.routing import Traffic

_NOTHING = Traffic()
_REMEMBERED = 64  # gateways that left and may come back with their counts


class Ledger:
    """`merged` is by agent; an agent without change keeps its object."""

    def __init__(self) -> None:
        self._live: dict[str, dict[str, Traffic]] = {}  # by gateway, then agent: what it last said
        self._left: dict[str, dict[str, Traffic]] = {}  # the same of gateways that left; it is part of `_past`
        self._past: dict[str, Traffic] = {}  # by agent: counts that no live gateway holds
        self.merged: dict[str, Traffic] = {}

    def update(self, gateway: str, traffic: Mapping[str, Traffic], gone: Collection[str] = ()) -> bool:
        """Takes in what changed at one gateway. Returns whether the merged statistics changed."""
        live = self._live.setdefault(gateway, {})
        left = self._left.setdefault(gateway, {})
        for agent, counts in traffic.items():
            before = left.pop(agent, None)
            if before is not None and not _fell(before, counts):
                self._past[agent] = _sum(self._past[agent], _counts(before), sign=-1)
            before = live.get(agent)
            if before is not None and _fell(before, counts):
                self._keep(agent, before)
            live[agent] = counts
        for agent in gone:
            if (before := live.pop(agent, None)) is not None:
                self._keep(agent, before)
        return self._merge({*traffic, *gone})

    def lose(self, gateway: str) -> bool:
        """The gateway is not connected any more: its counts stay, what was true of the instant does not."""
        live = self._live.pop(gateway, {})
        for agent, counts in live.items():
            self._keep(agent, counts)
        self._left[gateway] = {**self._left.pop(gateway, {}), **live}
        while len(self._left) > _REMEMBERED:
            del self._left[next(iter(self._left))]
        return self._merge(live)

    def retain(self, agents: Collection[str]) -> None:
        """Forgets agents that the fleet no longer has."""
        for table in (self.merged, self._past, *self._live.values(), *self._left.values()):
            for agent in [agent for agent in table if agent not in agents]:
                del table[agent]

    def _keep(self, agent: str, counts: Traffic) -> None:
        self._past[agent] = _sum(self._past.get(agent, _NOTHING), _counts(counts))

    def _merge(self, agents: Collection[str]) -> bool:
        changed = False
        for agent in agents:
            total = self._past.get(agent, _NOTHING)
            live = [table[agent] for table in self._live.values() if agent in table]
            for counts in live:
                total = _sum(total, counts)
            # An endpoint takes requests everywhere once the last gateway takes it for healthy.
            total = _with_healthy(total, min((counts.healthy for counts in live), default=0))
            if self.merged.get(agent) != total:
                self.merged[agent] = total
                changed = True
        return changed


def _fell(before: Traffic, after: Traffic) -> bool:
    return after.requests < before.requests or sum(after.latency_counts) < sum(before.latency_counts)


def _counts(traffic: Traffic) -> Traffic:
    """Without what was true of one instant only."""
    return Traffic(requests=traffic.requests, failures=traffic.failures, latency_counts=traffic.latency_counts)


def _with_healthy(traffic: Traffic, healthy: int) -> Traffic:
    return Traffic(traffic.active, traffic.held, traffic.requests, traffic.failures, healthy, traffic.latency_counts)


def _sum(one: Traffic, other: Traffic, sign: int = 1) -> Traffic:
    latencies = zip_longest(one.latency_counts, other.latency_counts, fillvalue=0)
    return Traffic(
        active=one.active + sign * other.active,
        held=one.held + sign * other.held,
        requests=one.requests + sign * other.requests,
        failures=one.failures + sign * other.failures,
        latency_counts=tuple(a + sign * b for a, b in latencies),
    )
