"""One measured figure with its goal: what the table shows and what is written to disk.

Ours and the baseline are measured in turns, and compared turn by turn, so that a machine that slows down half-way
slows both down. A row never passes or fails a test: a goal is something to look at.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Compare = Literal["alone", "ratio", "difference"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of the row's figure. `most` is an upper one, else it is a lower one."""

    bound: float
    most: bool = True

    def met_by(self, figure: float) -> bool:
        """Whether the figure keeps to it; NaN never does."""
        return figure <= self.bound if self.most else figure >= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """`ours` and `baseline` are in `unit`, one entry a turn. The row's figure is the `quantile` over the turns of ours
    alone, of ours / baseline, or of ours - baseline."""

    bench: str
    what: str
    unit: str
    ours: tuple[float, ...]
    goal: Goal | None = None
    baseline: tuple[float, ...] = ()
    compare: Compare = "alone"
    quantile: float = 0.5
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def compared(self) -> tuple[float, ...]:
        """The figure of each turn."""
        pairs = zip(self.ours, self.baseline, strict=False)
        match self.compare:
            case "alone":
                return self.ours
            case "ratio":
                return tuple(ours / other for ours, other in pairs if other)
            case "difference":
                return tuple(ours - other for ours, other in pairs)

    @property
    def figure(self) -> float:
        """What is held against the goal."""
        return quantile(self.compared, self.quantile)

    @property
    def ratio(self) -> float | None:
        """The median of ours / baseline, turn by turn."""
        return quantile([a / b for a, b in zip(self.ours, self.baseline, strict=False) if b], 0.5)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest figure of a turn."""
        return (min(self.compared), max(self.compared)) if self.compared else (float("nan"), float("nan"))

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; `None` where there is none."""
        return None if self.goal is None else self.goal.met_by(self.figure)

    def to_json(self) -> dict[str, Any]:
        """All of it, with what was worked out."""
        return {
            "bench": self.bench,
            "what": self.what,
            "unit": self.unit,
            "compare": self.compare,
            "quantile": self.quantile,
            "goal": None if self.goal is None else {"bound": self.goal.bound, "most": self.goal.most},
            "figure": self.figure,
            "met": self.met,
            "ratio": self.ratio,
            "spread": self.spread,
            "ours": self.ours,
            "baseline": self.baseline,
            "note": self.note,
            "details": dict(self.details),
        }


def quantile(values: Sequence[float], q: float) -> float:
    """The middle value (of two, their mean) for 0.5, else the one at or below which a share `q` lies; NaN of none."""
    if not values:
        return float("nan")
    if q == 0.5:
        return statistics.median(values)
    return sorted(values)[max(0, -int(-q * len(values) // 1) - 1)]
