"""How far a new revision of an agent is on its way, and when it is given up.

A rollout begins when another revision is wished, goes on while it makes progress, and is complete when nothing else is
left. One that makes none for too long has failed: the revision that served before (`stable`) then takes over again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.spec.model import Agent, Update
from shoal.units import format_duration

LEAST_DEADLINE_S = 120.0
_ROUNDING = 1e-9  # 20 % of 5 is 1
_GONE = (Phase.STOPPING, Phase.FAILED, Phase.SUCCEEDED)


class RolloutPhase(StrEnum):
    """Where a rollout is."""

    PROGRESSING = "progressing"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout, durable. `revision` is to take over from `stable` (`None`: there was nothing that served);
    `available` and `left` are the most new replicas and the fewest old ones so far. Times are epoch seconds."""

    revision: str
    stable: str | None
    generation: int
    started_at: float
    progressed_at: float
    available: int = 0
    left: int | None = None
    phase: RolloutPhase = RolloutPhase.PROGRESSING
    finished_at: float | None = None
    reason: str = ""
    last_log: tuple[str, ...] = ()

    def target(self, observed: AgentObserved) -> str:
        """The revision that should serve alone in the end: after a failure the one before, if it is still there."""
        failed = self.phase is RolloutPhase.FAILED
        return self.stable if failed and self.stable in observed.counts and self.stable else self.revision

    @property
    def fallback(self) -> str | None:
        """The revision that has to stay known, as it may have to take over again."""
        return self.stable if self.phase is RolloutPhase.PROGRESSING else None


def deadline_s(agent: Agent) -> float:
    """How long a rollout of the agent may go without progress."""
    given = agent.update.progress_deadline_s
    if given is not None:
        return given
    return max(LEAST_DEADLINE_S, 2 * agent.health.start_period_s) + agent.update.min_ready_time_s


def limits(update: Update, count: int) -> tuple[int, int]:
    """How many replicas there may be above `count`, and how many may be missing, as in a Deployment: the surge is
    rounded up, what may be missing down; where both come to nothing, one may be missing."""
    surge = math.ceil(_share(update.max_surge, count) - _ROUNDING)
    unavailable = min(count, math.floor(_share(update.max_unavailable, count) + _ROUNDING))
    return (surge, unavailable) if surge or unavailable else (0, min(1, count))


def is_available(replica: Replica) -> bool:
    """Whether it does its work now."""
    return replica.phase is Phase.RUNNING and replica.ready


def proven_at(replica: Replica, update: Update) -> float | None:
    """From when on it counts as one that can take the place of an old one, if it stays ready; `None`: it is not."""
    if not is_available(replica):
        return None
    return (replica.ready_at or 0.0) + update.min_ready_time_s


def begin(previous: Rollout | None, revision: str, generation: int, observed: AgentObserved, *, now: float) -> Rollout:
    """The rollout of the wished revision: the one that goes on, or a new one in its place."""
    if previous is not None and previous.revision == revision:
        return previous
    known = None
    if previous is not None:
        known = previous.revision if previous.phase is RolloutPhase.COMPLETE else previous.stable
    if known == revision or not observed.counts.get(known or ""):
        known = _best_other(observed, revision)
    return Rollout(revision, known, generation, now, now)


def advance(
    rollout: Rollout, agent: Agent, observed: AgentObserved, *, desired: int, healthy: int | None, now: float
) -> Rollout:
    """The rollout after a look: further, or given up. The same object where nothing is to be said."""
    if rollout.phase is not RolloutPhase.PROGRESSING:
        return rollout
    new = [r for r in observed.replicas if r.revision == rollout.revision and r.phase not in _GONE]
    available = sum(1 for r in new if (proven_at(r, agent.update) or math.inf) <= now)
    left = sum(count for revision, count in observed.counts.items() if revision != rollout.revision)
    fewest = left if rollout.left is None else rollout.left
    if available > rollout.available or left < fewest:
        return replace(rollout, available=max(available, rollout.available), left=min(left, fewest), progressed_at=now)
    if rollout.left is None:
        rollout = replace(rollout, left=left)
    if rollout.revision in observed.queued:
        return rollout if now < _waits_until(rollout, agent) else replace(rollout, progressed_at=now)
    seen = available if healthy is None or agent.port is None else min(available, healthy)
    if now < rollout.progressed_at + deadline_s(agent) or (seen >= desired and not left):
        return rollout
    return _given_up(rollout, agent, observed, new, f"{seen} of {desired} ready", now)


def complete(rollout: Rollout, *, now: float) -> Rollout:
    """Nothing is left to do. One that had failed for lack of anything to fall back to may still get there."""
    if rollout.phase is RolloutPhase.COMPLETE:
        return rollout
    return replace(rollout, phase=RolloutPhase.COMPLETE, finished_at=now, reason="", last_log=())


def gives_up_at(rollout: Rollout, agent: Agent, observed: AgentObserved, *, now: float) -> float | None:
    """The instant at which `advance` would answer otherwise on an equal look; `None` once that has come, as what it
    waits for then is only for old replicas to end."""
    queued = rollout.revision in observed.queued
    due_at = _waits_until(rollout, agent) if queued else rollout.progressed_at + deadline_s(agent)
    return due_at if rollout.phase is RolloutPhase.PROGRESSING and due_at > now else None


def _waits_until(rollout: Rollout, agent: Agent) -> float:
    """Until when a rollout whose replicas the engine has not come to make keeps its clock. It is set anew then, so that
    at least half of the time is left for a start once they are made."""
    return rollout.progressed_at + deadline_s(agent) / 2


def _given_up(
    rollout: Rollout, agent: Agent, observed: AgentObserved, new: list[Replica], ready: str, now: float
) -> Rollout:
    worst = min(new, key=lambda r: (is_available(r), not r.reason, -r.restarts), default=None)
    why = "no replica of it was started"
    if worst is not None and is_available(worst):
        why = "the gateway does not find it healthy" if agent.port is not None else "it does not stay ready"
    elif worst is not None:
        why = f"{worst.id}: {worst.reason or 'not ready'}"
    before = [r for r in observed.replicas if r.revision == rollout.stable and r.phase not in _GONE]
    broken = bool(before) and not any(is_available(r) for r in before)  # then the new version is as good a hope
    return replace(
        rollout,
        phase=RolloutPhase.FAILED,
        finished_at=now,
        stable=None if broken else rollout.stable,
        reason=f"no progress for {format_duration(deadline_s(agent))}, {ready}; {why}",
        last_log=worst.last_log if worst is not None and not is_available(worst) else (),
    )


def _best_other(observed: AgentObserved, revision: str) -> str | None:
    """The other revision of which the most replicas do their work; `None` where none does."""
    serving: dict[str, int] = {}
    for replica in observed.replicas:
        if replica.revision != revision and is_available(replica):
            serving[replica.revision] = serving.get(replica.revision, 0) + 1
    return max(serving, key=lambda each: (serving[each], each), default=None)


def _share(share: int | str, count: int) -> float:
    return share if isinstance(share, int) else count * float(share.rstrip("%")) / 100
