"""When `up` is done: everything settled, or something will never be. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from shoal.api.views import AgentView, StatusView

FAILURE_GRACE_S = 2.0  # what failed just now may be what an earlier version left behind
PROBLEM_GRACE_S = 3.0  # the controller tries again each second
UNROUTED_GRACE_S = 35.0  # a gateway may take half a minute to come, whatever else is wrong meanwhile
AWAY_GRACE_S = 30.0  # Docker is started anew, or its Swarm elects a leader
_AT_REST = frozenset(("ok", "asleep"))


class Verdict(Enum):
    """What a look at the fleet says about the generation that is waited for."""

    WAITING = auto()
    SETTLED = auto()
    FAILED = auto()
    SUPERSEDED = auto()  # a later generation is stored


@dataclass
class Settling:
    """Judges one look after the other. `agents` are those that count; none: all of them."""

    generation: int
    agents: Sequence[str] = ()
    _failed_since: dict[str, float] = field(default_factory=dict[str, float])
    _not_taken_since: float | None = None
    _away_since: float | None = None
    _unrouted_since: float | None = None

    def judge(self, view: StatusView, now: float) -> Verdict:
        """What this look says, `now` being any clock that goes on."""
        if max(view.generation, view.observed_generation) > self.generation:
            return Verdict.SUPERSEDED
        if view.engine_away:
            return self._judge_away(now)
        self._away_since = None
        if view.observed_generation < self.generation:
            return self._judge_not_taken(view, now)
        if self._is_unrouted(view, now):
            return Verdict.FAILED
        concerned = self.concerned(view)
        for agent in concerned:
            if agent.state in _AT_REST:
                self._failed_since.pop(agent.name, None)
            elif agent.state == "failed":
                self._failed_since.setdefault(agent.name, now)
        if self.agents:
            settled = view.routed and all(
                agent.settled and agent.state not in {"progressing", "failed"} for agent in concerned
            )
        else:
            settled = view.settled
        if settled and not self._failed_since:
            return Verdict.SETTLED
        failed = [agent for agent in concerned if agent.state == "failed"]
        if any(now - self._failed_since[agent.name] >= FAILURE_GRACE_S for agent in failed):
            return Verdict.FAILED
        return Verdict.WAITING

    def _judge_not_taken(self, view: StatusView, now: float) -> Verdict:
        """A problem that stays while the generation is not taken up is what keeps it from that."""
        if not view.problems:
            self._not_taken_since = None
        elif self._not_taken_since is None:
            self._not_taken_since = now
        elif now - self._not_taken_since >= PROBLEM_GRACE_S:
            return Verdict.FAILED
        return Verdict.WAITING

    def _is_unrouted(self, view: StatusView, now: float) -> bool:
        """Whether requests have not reached it for long, and something is known that may be why."""
        if view.routed or not view.problems:
            self._unrouted_since = None
            return False
        if self._unrouted_since is None:
            self._unrouted_since = now
        return now - self._unrouted_since >= UNROUTED_GRACE_S

    def _judge_away(self, now: float) -> Verdict:
        """What fails while the engine is away is looked at anew once it is back."""
        self._failed_since.clear()
        self._not_taken_since = self._unrouted_since = None
        if self._away_since is None:
            self._away_since = now
        return Verdict.FAILED if now - self._away_since >= AWAY_GRACE_S else Verdict.WAITING

    def concerned(self, view: StatusView) -> list[AgentView]:
        """The agents that count: all, or the named ones and for whom these wait."""
        if not self.agents:
            return list(view.agents)
        by_name = {agent.name: agent for agent in view.agents}
        found: dict[str, AgentView] = {}
        names = list(self.agents)
        while names:
            agent = by_name.get(names.pop())
            if agent is not None and agent.name not in found:
                found[agent.name] = agent
                names += agent.waits_on
        return [agent for agent in view.agents if agent.name in found]

    def in_the_way(self, view: StatusView) -> list[AgentView]:
        """Those that are not at rest."""
        return [agent for agent in self.concerned(view) if agent.state not in _AT_REST]
