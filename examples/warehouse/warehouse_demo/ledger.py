"""What the fleet did over time, added up from one look to the next: replica-seconds, the largest counts, decisions.

Pure: looks come in as values, with their own time.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from shoal.api.views import AgentView, DecisionView, StatusView

_ALIVE = ("running", "stopping")
_NUMBER = re.compile(r"\d[\d.]*")


@dataclass
class Ledger:
    """Feed it every look, in order; what is between two looks counts as the earlier one."""

    replica_seconds: dict[str, float] = field(default_factory=dict[str, float])
    largest: dict[str, int] = field(default_factory=dict[str, int])
    decisions: dict[tuple[str, float], DecisionView] = field(default_factory=dict[tuple[str, float], DecisionView])
    crashes: list[str] = field(default_factory=list[str])  # who ended by itself, and how
    last: StatusView | None = None
    first_at: float | None = None

    def see(self, view: StatusView) -> None:
        """One more look."""
        if self.first_at is None:
            self.first_at = view.at
        self.pass_time(view.at)
        for agent in view.agents:
            self.largest[agent.name] = max(self.largest.get(agent.name, 0), alive(agent))
            if agent.decision is not None:
                self.decide(agent.name, agent.decision)
        self.last = view

    def pass_time(self, until: float) -> None:
        """Count what was alive at the last look up to this instant."""
        if self.last is None:
            return
        for agent in self.last.agents:
            spent = alive(agent) * max(0.0, until - self.last.at)
            self.replica_seconds[agent.name] = self.replica_seconds.get(agent.name, 0.0) + spent

    def decide(self, agent: str, decision: DecisionView) -> None:
        """Note a decision that changed a count; the same one again is not noted twice."""
        if decision.count != decision.current:
            self.decisions[agent, decision.at] = decision

    @property
    def seconds(self) -> float:
        """From the first look to the last."""
        return self.last.at - self.first_at if self.last is not None and self.first_at is not None else 0.0

    @property
    def share_of_fixed(self) -> float:
        """Replica-seconds used, as a share of what a fleet would use that had its largest size all the time."""
        fixed = sum(self.largest.values()) * self.seconds
        return sum(self.replica_seconds.values()) / fixed if fixed else float("nan")

    def top_reasons(self, count: int) -> list[tuple[int, str, str]]:
        """The commonest reasons: how often, whose, and the newest wording (numbers differ, the reason is the same).

        A step that is decided again, as it was not carried out yet, counts once.
        """
        often: Counter[tuple[str, str]] = Counter()
        wording: dict[tuple[str, str], str] = {}
        steps: dict[str, tuple[int, int]] = {}
        for (agent, _), decision in sorted(self.decisions.items(), key=lambda item: item[0][1]):
            step = (decision.current, decision.count)
            way = "up" if decision.count > decision.current else "down"
            kind = (agent, way + _NUMBER.sub("#", decision.reason))
            often[kind] += steps.get(agent) != step
            steps[agent] = step
            wording[kind] = f"{decision.current} -> {decision.count}: {decision.reason}"
        return [(times, kind[0], wording[kind]) for kind, times in often.most_common(count)]


def alive(agent: AgentView) -> int:
    """Replicas that use the machine, serving or not; runs of a job are not replicas."""
    return sum(replica.phase in _ALIVE for replica in agent.replicas)
