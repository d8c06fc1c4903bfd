"""What containers use, from one-shot statistics: CPU is a rate between two looks, so that the last one is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoal.core.signals import Usage


@dataclass(frozen=True, slots=True)
class Look:
    """`at_s` is on a clock that nobody steps; `memory_bytes` is without the page cache that may go at any time."""

    at_s: float
    cpu_s: float
    memory_bytes: int


def parse_stats(stats: Mapping[str, Any], at_s: float) -> Look | None:
    """`None` of a container that has ended meanwhile: its statistics are empty."""
    cpu_ns: int = stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0)
    memory: Mapping[str, Any] = stats.get("memory_stats") or {}
    if not memory.get("usage"):
        return None
    pages: Mapping[str, int] = memory.get("stats") or {}
    # The kernel's two control groups call it by two names.
    cache = pages.get("total_inactive_file", pages.get("inactive_file", 0))
    return Look(at_s, cpu_ns / 1e9, max(0, memory["usage"] - cache))


class Meter:
    """A container is absent from the first measurement that sees it."""

    def __init__(self) -> None:
        self._last: dict[str, Look] = {}

    def measure(self, looks: Mapping[str, Look], now: float) -> dict[str, Usage]:
        """Use by container; `now` in epoch seconds dates it."""
        usage: dict[str, Usage] = {}
        for container, look in looks.items():
            last = self._last.get(container)
            if last is not None and look.at_s > last.at_s:
                window_s = look.at_s - last.at_s
                cores = max(0.0, look.cpu_s - last.cpu_s) / window_s
                usage[container] = Usage(cores, look.memory_bytes, now, window_s)
        self._last = dict(looks)
        return usage
