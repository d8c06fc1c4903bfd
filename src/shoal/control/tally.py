"""What the controller counts of itself, for its metrics: how long its passes take, and what it decided and why."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from shoal.core.decision import Decision

PASS_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(slots=True)
class Tally:
    """Counts since this controller started. `passes[i]` counts passes of at most `PASS_BOUNDS_S[i]` and more than the
    bound before; the last entry those above all. `decisions` is by agent, direction (`up`, `down`) and reason."""

    passes: list[int] = field(default_factory=lambda: [0] * (len(PASS_BOUNDS_S) + 1))
    passes_s: float = 0.0
    decisions: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])

    def add_pass(self, took_s: float) -> None:
        self.passes[bisect_left(PASS_BOUNDS_S, took_s)] += 1
        self.passes_s += took_s

    def add_decision(self, decision: Decision) -> None:
        direction = "up" if decision.count > decision.current else "down"
        self.decisions[decision.agent, direction, reason_of(decision)] += 1

    def retain(self, agents: Collection[str]) -> None:
        """Forgets agents that the fleet no longer has."""
        for key in [key for key in self.decisions if key[0] not in agents]:
            del self.decisions[key]


def reason_of(decision: Decision) -> str:
    """In one word out of few: `pin`, `owner` where somebody else sets the count, the trigger that asked for most, `min`
    or `max` where none was asked, `waiting` for requests or tasks that wait for a first replica."""
    if decision.capped_by in {"pin", "owner"}:
        return decision.capped_by
    asked = [proposal for proposal in decision.proposals if proposal.count is not None]
    if asked and (decision.count <= decision.current or any(proposal.count for proposal in asked)):
        return max(asked, key=lambda proposal: proposal.count or 0).trigger
    return decision.capped_by if decision.capped_by in {"min", "max"} else "waiting"
