"""What a fleet's controller tells of its passes, read from its page of metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r'^shoal_controller_pass_seconds_(bucket\{le="(?P<le>[^"]+)"\}|sum|count) (?P<value>\S+)$', re.M)


@dataclass(frozen=True, slots=True)
class Passes:
    """Since the controller's start: how many took at most so many seconds, by that bound, and all of them together."""

    at_most: dict[float, float]
    total_s: float

    def since(self, before: Passes) -> Passes:
        """Those after an earlier look."""
        counts = {bound: count - before.at_most.get(bound, 0.0) for bound, count in self.at_most.items()}
        return Passes(counts, self.total_s - before.total_s)

    @property
    def count(self) -> float:
        return self.at_most.get(float("inf"), 0.0)

    @property
    def mean_s(self) -> float:
        """NaN of none."""
        return self.total_s / self.count if self.count else float("nan")

    @property
    def longest_at_most_s(self) -> float:
        """The least bound that all kept to."""
        return min((bound for bound, count in self.at_most.items() if count >= self.count), default=float("nan"))


def passes_in(page: str) -> Passes:
    """Of the page's text."""
    at_most: dict[float, float] = {}
    total_s = 0.0
    for found in _LINE.finditer(page):
        if found["le"]:
            at_most[float(found["le"].replace("+Inf", "inf"))] = float(found["value"])
        elif found[1] == "sum":
            total_s = float(found["value"])
    return Passes(at_most, total_s)
