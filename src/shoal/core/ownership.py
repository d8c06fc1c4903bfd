"""Who says how many replicas an agent has, where that is not Shoal: its engine's own autoscaler, to which Shoal handed
it over, or somebody who set the count in the engine. Of one count there is one owner at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shoal.core.observed import AgentObserved, CountOwner
from shoal.core.rollout import Rollout, RolloutPhase
from shoal.spec.model import Agent, Fleet, Kind


@dataclass(frozen=True, slots=True)
class Held:
    """A count that is not Shoal's to decide now. `delegated`: its owner is the engine's autoscaler, by our wish."""

    count: int
    owner: CountOwner
    delegated: bool = False


def held_count(
    observed: AgentObserved,
    rollout: Rollout | None,
    *,
    stateful: bool,
    pinned: bool = False,
    overruled: CountOwner | None = None,
) -> Held | None:
    """Whose count is to be left alone, if anybody's. The engine's autoscaler has it until it is taken back, but for a
    pin; `overruled` is an owner from whom a person took it.

    While a version takes over, the counts of both are Shoal's: another version is another object, and what was set of
    the one before ends with it. A stateful agent has one object for all, so there who goes on setting it keeps it.
    """
    autoscaler = observed.autoscaler
    if autoscaler is not None and not pinned and autoscaler.revision not in observed.owners:
        count = _count(observed, autoscaler.revision, stateful=stateful)
        if count:  # it does nothing at zero
            return Held(count, autoscaler.owner, delegated=True)
    if rollout is None:
        return None
    serving = rollout.target(observed)
    owner = observed.owners.get(serving)
    if owner is None or owner == overruled:
        return None
    if rollout.phase is RolloutPhase.PROGRESSING and not (stateful and owner.lasting):
        return None
    return Held(_count(observed, serving, stateful=stateful), owner)


def _count(observed: AgentObserved, revision: str, *, stateful: bool) -> int:
    return sum(observed.counts.values()) if stateful else observed.counts.get(revision, 0)


def is_native(fleet: Fleet, agent: Agent) -> bool:
    """Whether the engine's own autoscaler is to set the agent's count."""
    return _asks(fleet) and _varies(agent) and not any(_only_shoals(agent))


def scaled_by_shoal(fleet: Fleet) -> dict[str, str]:
    """By agent, why it stays with Shoal though the file asks for the engine's own autoscaler."""
    if not _asks(fleet):
        return {}
    reasons = {name: " and no ".join(_only_shoals(agent)) for name, agent in fleet.agents.items() if _varies(agent)}
    return {name: reason for name, reason in reasons.items() if reason}


def _asks(fleet: Fleet) -> bool:
    return fleet.engine == "kubernetes" and fleet.kubernetes.autoscaler == "native"


def _varies(agent: Agent) -> bool:
    scale = agent.scale
    asks = bool(scale.cron) or any(value is not None for value in vars(scale.target).values())
    return agent.kind is not Kind.JOB and scale.min < scale.max and asks


def _only_shoals(agent: Agent) -> Iterator[str]:
    """What of its scaling an HPA can't do without add-ons, or does behind a feature gate alone."""
    scale = agent.scale
    if scale.min == 0:
        yield "min 0"
    targets = scale.target.model_dump(by_alias=True, exclude_none=True)
    yield from (f"target {name}" for name in targets if name not in ("cpu", "memory"))
    if scale.cron:
        yield "cron"
    if any(rules.tolerance is not None for rules in (scale.behavior.scale_up, scale.behavior.scale_down)):
        yield "tolerance"
