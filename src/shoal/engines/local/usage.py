"""What replicas use, children included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal.core.signals import Usage
from shoal.engines.local.census import Member

_SHORTEST_WINDOW_S = 0.05


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    cpu_s: float


class UsageMeter:
    """CPU is a rate between two calls, so that a replica is absent from the first that sees it. Memory is resident
    bytes, summed: pages that forked children share are counted for each."""

    def __init__(self) -> None:
        self._looks: dict[tuple[str, int], _Look] = {}

    def measure(
        self, families: Mapping[str, Sequence[Member]], sessions: Mapping[str, int], now: float, at_s: float
    ) -> dict[str, Usage]:
        """Use by replica. `sessions`: each one's leader's, another for each start; `now`: epoch seconds, as what is
        said is dated; `at_s`: on a clock that nobody steps."""
        looks: dict[tuple[str, int], _Look] = {}
        usage: dict[str, Usage] = {}
        for replica, members in families.items():
            key = (replica, sessions[replica])
            cpu_s = sum(member.cpu_s for member in members)
            before = self._looks.get(key)
            looks[key] = _Look(at_s, cpu_s)
            if before is None:
                continue
            window_s = at_s - before.at_s
            if window_s < _SHORTEST_WINDOW_S:
                looks[key] = before
                window_s = max(window_s, 1e-3)
            # A child whose parent never waited for it takes its time with it: not less than nothing.
            cores = max(0.0, cpu_s - before.cpu_s) / window_s
            usage[replica] = Usage(cores, sum(member.resident_bytes for member in members), now, window_s)
        self._looks = looks
        return usage
