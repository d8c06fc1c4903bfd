"""From what is wished and what is there to the next actions for one agent: one step at a time, each safe by itself.

The order that fails no request: a new replica serves before an old one leaves; a replica that takes requests is first
taken out of the gateway (`leaving`), and told to stop only when every gateway has acknowledged that (`left`).
Asked again with the same input, the answer is the same, so a controller that dies between two steps loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from shoal.core.action import Action, EnsureRevision, Remove, Scale
from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.core.template import Template
from shoal.spec.model import Kind

SURGE = 0.25  # of the wished count, rounded up, as in a Deployment; none may be unavailable meanwhile
_GONE = (Phase.STOPPING, Phase.FAILED, Phase.SUCCEEDED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one agent should be: `count` replicas of `revision`. `ensure` says that the engine has to be told the
    revision even if it knows it (a new controller, new addresses)."""

    agent: str
    revision: str
    template: Template
    count: int
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    ensure: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now. `serving` are the replicas that the gateway should send to, `leaving` those that it should not
    any more although they live. `settled`: nothing is left to do; `waiting_for` says in words for what else."""

    actions: tuple[Action, ...]
    serving: tuple[Replica, ...]
    leaving: frozenset[str]
    settled: bool
    waiting_for: str = ""


def takes_requests(replica: Replica) -> bool:
    """Whether the gateway may send to it: it was ready once in this life. From then on the gateway's own check
    decides: if all replicas are slow at once, taking all of them out would turn slow answers into failures."""
    return replica.phase is Phase.RUNNING and replica.ready_at is not None and replica.port is not None


def reconcile(
    wanted: Wanted,
    observed: AgentObserved,
    *,
    leaving: frozenset[str],
    left: frozenset[str],
    healthy: int | None,
    chooses_victims: bool,
) -> Step:
    """The next step of one service or worker.

    `leaving` and `left` are what the previous step asked for and what the gateways have acknowledged since;
    `healthy` is how many endpoints the gateways take for healthy (`None`: nobody knows).
    """
    targets, waiting_for = _targets(wanted, observed, leaving, healthy)
    told: list[Action] = []
    if wanted.ensure or wanted.revision not in observed.counts:
        told.append(EnsureRevision(wanted.agent, wanted.revision, wanted.template, wanted.environment))
    actions: list[Action] = []
    now_leaving: set[str] = set()
    for revision, target in targets.items():
        scale, revision_leaving = _scale(wanted, observed, revision, target, leaving, left, chooses_victims)
        now_leaving |= revision_leaving
        if scale is not None:
            actions.append(scale)
    actions += [
        Remove(wanted.agent, revision)
        for revision, count in observed.counts.items()
        if revision != wanted.revision and count == 0 and not _replicas_of(observed, revision)
    ]
    serving = tuple(r for r in observed.replicas if takes_requests(r) and r.id not in now_leaving)
    settled = not actions and not now_leaving and _at_rest(wanted, observed, serving, healthy)
    return Step((*told, *actions), serving, frozenset(now_leaving), settled, "" if settled else waiting_for)


def reconcile_removed(
    agent: str, observed: AgentObserved, *, leaving: frozenset[str], left: frozenset[str], chooses_victims: bool
) -> Step:
    """The next step of an agent that is not in the fleet any more: drained, stopped, forgotten."""
    in_service = frozenset(r.id for r in observed.replicas if takes_requests(r))
    waiting = in_service - left
    if chooses_victims and waiting:
        return Step((), (), in_service, settled=False, waiting_for=f"{len(waiting)} to leave the gateway")
    gone = not observed.replicas and not observed.counts and not observed.runs
    actions: tuple[Action, ...] = () if gone else (Remove(agent),)
    return Step(actions, (), in_service & leaving, settled=gone, waiting_for="" if gone else "replicas to end")


def _replicas_of(observed: AgentObserved, revision: str) -> list[Replica]:
    return [r for r in observed.replicas if r.revision == revision]


def _live(observed: AgentObserved, revision: str) -> list[Replica]:
    return [r for r in observed.replicas if r.revision == revision and r.phase not in _GONE]


def _targets(
    wanted: Wanted, observed: AgentObserved, leaving: frozenset[str], healthy: int | None
) -> tuple[dict[str, int], str]:
    """How many replicas each revision should have after this step, and what the next step waits for."""
    old = {r: n for r, n in observed.counts.items() if r != wanted.revision}
    if wanted.template.stateful and sum(old.values()):
        return _stateful_targets(wanted, observed, old)
    if not sum(old.values()):
        return {wanted.revision: wanted.count, **dict.fromkeys(old, 0)}, "replicas to get ready"
    return _rolling_targets(wanted, observed, old, leaving, healthy)


def _rolling_targets(
    wanted: Wanted, observed: AgentObserved, old: Mapping[str, int], leaving: frozenset[str], healthy: int | None
) -> tuple[dict[str, int], str]:
    """New ones up to the surge; old ones go as new ones can take their place."""
    count = wanted.count
    new_now = observed.counts.get(wanted.revision, 0)
    new_target = min(count, max(new_now, count + math.ceil(count * SURGE) - sum(old.values())))
    staying = sum(1 for r in observed.replicas if _available(wanted, r) and r.id not in leaving)
    if wanted.template.kind is Kind.SERVICE and healthy is not None:
        staying = min(staying, healthy)
    spare = max(0, staying - count)
    targets = {wanted.revision: new_target}
    for revision, now in sorted(old.items()):
        live = _live(observed, revision)
        free = sum(1 for r in live if not _available(wanted, r) or r.id in leaving)
        goes = min(now, free + spare) if count else now
        spare -= max(0, goes - free)
        targets[revision] = now - goes
    return targets, "new replicas to get ready" if staying <= count else "old replicas to drain"


def _stateful_targets(wanted: Wanted, observed: AgentObserved, old: Mapping[str, int]) -> tuple[dict[str, int], str]:
    """Stop first, from the highest ordinal down, one at a time, never two holders of an identity."""
    live_total = sum(observed.counts.values())
    new_now = observed.counts.get(wanted.revision, 0)
    unchanged = dict(old)
    ending = any(r.phase is Phase.STOPPING for r in observed.replicas)
    if live_total < wanted.count:
        grown = new_now if ending else new_now + 1
        return {wanted.revision: grown, **unchanged}, "an identity to be free"
    if live_total > wanted.count:
        return _without_highest(observed, {wanted.revision: new_now, **old}), "the highest ordinal to stop"
    if not all(r.ready for r in _live(observed, wanted.revision)):
        return {wanted.revision: new_now, **unchanged}, "the replaced replica to get ready"
    return _without_highest(observed, {wanted.revision: new_now, **unchanged}, of=old), "the highest ordinal to stop"


def _without_highest(
    observed: AgentObserved, counts: Mapping[str, int], of: Collection[str] | None = None
) -> dict[str, int]:
    """The counts less one, for the highest ordinal that lives, of these revisions or of all."""
    targets = dict(counts)
    live = [r for r in observed.replicas if r.phase not in _GONE and r.revision in (targets if of is None else of)]
    if live:
        targets[max(live, key=lambda r: r.ordinal or 0).revision] -= 1
    return targets


def _available(wanted: Wanted, replica: Replica) -> bool:
    if wanted.template.port is not None and wanted.template.kind is Kind.SERVICE:
        return takes_requests(replica) and replica.ready
    return replica.phase is Phase.RUNNING and replica.ready


def _scale(
    wanted: Wanted,
    observed: AgentObserved,
    revision: str,
    target: int,
    leaving: frozenset[str],
    left: frozenset[str],
    chooses_victims: bool,
) -> tuple[Scale | None, frozenset[str]]:
    """Sets one revision's count, by way of the drain where replicas have to go."""
    count = observed.counts.get(revision, 0)
    if target >= count:
        return (Scale(wanted.agent, revision, target) if target > count else None), frozenset()
    if not chooses_victims:
        return Scale(wanted.agent, revision, target), frozenset()
    victims = choose_victims(_live(observed, revision), count - target, leaving, stateful=wanted.template.stateful)
    at_once = [r.id for r in victims if not takes_requests(r) or r.id in left]
    draining = frozenset(r.id for r in victims if takes_requests(r))
    # A count above the live replicas (the engine has not made them yet) needs no victim to come down.
    stop_count = count - len(at_once) - max(0, count - target - len(victims))
    if stop_count == count:
        return None, draining
    return Scale(wanted.agent, revision, stop_count, tuple(at_once)), draining


def choose_victims(
    live: Sequence[Replica], number: int, leaving: frozenset[str], *, stateful: bool
) -> tuple[Replica, ...]:
    """Who goes: those already on their way, then what does not serve, then the youngest; for stateful agents the
    highest ordinals."""
    if stateful:
        ordered = sorted(live, key=lambda r: -(r.ordinal or 0))
    else:
        ordered = sorted(live, key=lambda r: (r.id not in leaving, takes_requests(r), r.ready, -r.created_at, r.id))
    return tuple(ordered[:number])


def _at_rest(wanted: Wanted, observed: AgentObserved, serving: Sequence[Replica], healthy: int | None) -> bool:
    if observed.counts.get(wanted.revision) != wanted.count or any(
        n for revision, n in observed.counts.items() if revision != wanted.revision
    ):
        return False
    if len(observed.replicas) != wanted.count or not all(r.ready for r in observed.replicas):
        return False
    is_service = wanted.template.kind is Kind.SERVICE
    return not is_service or wanted.count == 0 or (healthy is not None and healthy >= len(serving) > 0)
