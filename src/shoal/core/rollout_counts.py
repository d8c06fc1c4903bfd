"""How many replicas each revision of an agent should have next, while one takes over from others.

As a Deployment does it: new ones up to the surge, old ones go as new ones prove themselves, what does not work first.
Unlike one, capacity that is asked for meanwhile comes from the revision that is proven, not in proportion.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.core.rollout import is_available, limits, proven_at
from shoal.core.template import Template
from shoal.spec.model import Kind, Update
from shoal.spec.scaling import Scale

GONE = (Phase.STOPPING, Phase.FAILED, Phase.SUCCEEDED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one agent should be: `count` replicas of `revision`. `ensure` says that the engine has to be told the
    revision even if it knows it (a new controller, new addresses). `stable` is the revision to come back to
    while it is not certain that the new one does its work, so it stays known; `now` is an epoch second. `autoscale`:
    once at rest, the engine's own autoscaler is to set the count, by this; `claims`: the count is to be Shoal's though
    somebody else set it."""

    agent: str
    revision: str
    template: Template
    count: int
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    ensure: bool = False
    update: Update = field(default_factory=Update)
    stable: str | None = None
    now: float = 0.0
    autoscale: Scale | None = None
    claims: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """By revision; what the next step waits for, in words; and when the answer changes by itself."""

    of: Mapping[str, int]
    waiting_for: str
    due_at: float | None = None


def next_counts(wanted: Wanted, observed: AgentObserved, leaving: Collection[str], healthy: int | None) -> Counts:
    """How many replicas each revision should have after this step."""
    old = {revision: count for revision, count in observed.counts.items() if revision != wanted.revision}
    replaced = not sum(old.values())
    if replaced and wanted.template.stateful and _would_leave_unready(wanted, observed):
        now = observed.counts.get(wanted.revision, 0)
        return Counts({wanted.revision: now, **dict.fromkeys(old, 0)}, "the identities that stay to get ready")
    if replaced and (wanted.stable not in old or wanted.template.stateful):
        return Counts({wanted.revision: wanted.count, **dict.fromkeys(old, 0)}, "replicas to get ready")
    if wanted.template.stateful:
        return _one_by_one(wanted, observed, old)
    return _rolling(wanted, observed, old, leaving, healthy)


def _would_leave_unready(wanted: Wanted, observed: AgentObserved) -> bool:
    """Whether a scale-down would take highest ordinals that work and leave one that does not: as a StatefulSet it
    waits for that one, else nobody might be left to serve."""
    ordered = sorted(live(observed, wanted.revision), key=lambda r: r.ordinal or 0)
    stay, go = ordered[: wanted.count], ordered[wanted.count :]
    return any(is_available(r) for r in go) and not all(is_available(r) for r in stay)


def takes_requests(replica: Replica) -> bool:
    """Whether the gateway may send to it: it was ready once in this life. From then on the gateway's own check
    decides: if all replicas are slow at once, taking all of them out would turn slow answers into failures."""
    return replica.phase is Phase.RUNNING and replica.ready_at is not None and replica.port is not None


def live(observed: AgentObserved, revision: str) -> list[Replica]:
    """The replicas of a revision that are not ending."""
    return [r for r in observed.replicas if r.revision == revision and r.phase not in GONE]


def _rolling(
    wanted: Wanted, observed: AgentObserved, old: Mapping[str, int], leaving: Collection[str], healthy: int | None
) -> Counts:
    if not wanted.count:
        return Counts({wanted.revision: 0, **dict.fromkeys(old, 0)}, "replicas to drain")
    surge, unavailable = limits(wanted.update, wanted.count)
    least = wanted.count - unavailable
    new_now, old_now = observed.counts.get(wanted.revision, 0), sum(old.values())
    proven, due_at = _proven(wanted, observed)
    working = {r: [each for each in live(observed, r) if _works(wanted, each)] for r in old}
    # At least `least` go on serving: who leaves already is not counted on, and comes back if it is needed after all;
    # nor is who is above the count: the engine was told to end one, and has not come to it.
    kept = {r: min(count, sum(1 for each in working[r] if each.id not in leaving)) for r, count in old.items()}
    out = {r: min(count - kept[r], len(working[r]) - kept[r]) for r, count in old.items()}
    staying = min(new_now, sum(1 for each in proven if each.id not in leaving)) + sum(kept.values())
    if wanted.template.kind is Kind.SERVICE and healthy is not None:
        staying = min(staying, healthy)
    going = max(0, sum(out.values()) + staying - least)
    # What does not work goes first, but only as far as new ones have proven themselves: the rest may yet recover.
    idle = max(0, old_now + len(proven) - least - going)
    idle_out = _spread(idle, {r: max(0, count - len(working[r])) for r, count in old.items()})
    soon_out = _spread(going, out)
    next_out = _spread(going - sum(soon_out.values()), kept)
    targets = {r: max(0, count - idle_out[r] - soon_out[r] - next_out[r]) for r, count in old.items()}

    # While no new one has proven itself, capacity that is missing comes from the old revision, in place of new ones,
    # but of those that work: they may be about to prove themselves, or have done so by a clock that was set back.
    new_working = sum(1 for each in live(observed, wanted.revision) if _works(wanted, each))
    growth = max(0, least - old_now - new_working) if not proven and wanted.stable in old else 0
    if growth and wanted.stable is not None:  # within the surge: new ones that are there may have to go first
        targets[wanted.stable] += max(0, min(growth, wanted.count + surge - old_now - new_now))
    room = wanted.count + surge - old_now - growth
    keeps = min(new_now, max(1, new_working) if growth else wanted.count)
    drains = any(targets[r] < old[r] for r in old)
    waiting_for = "old replicas to drain" if drains else "new replicas to get ready"
    return Counts({wanted.revision: max(keeps, min(wanted.count, room)), **targets}, waiting_for, due_at)


def _spread(budget: int, pools: Mapping[str, int]) -> dict[str, int]:
    """Takes as many as `budget` out of the pools, one pool after the other; says how many out of each."""
    taken: dict[str, int] = {}
    for name, size in sorted(pools.items()):
        taken[name] = max(0, min(size, budget))
        budget -= taken[name]
    return taken


def _proven(wanted: Wanted, observed: AgentObserved) -> tuple[list[Replica], float | None]:
    """The new replicas that can take the place of old ones, and when the next one will be able to."""
    proven: list[Replica] = []
    due_at: float | None = None
    for replica in live(observed, wanted.revision):
        at = proven_at(replica, wanted.update) if _works(wanted, replica) else None
        if at is None:
            continue
        if at <= wanted.now:
            proven.append(replica)
        else:
            due_at = at if due_at is None else min(due_at, at)
    return proven, due_at


def _works(wanted: Wanted, replica: Replica) -> bool:
    if wanted.template.port is not None and wanted.template.kind is Kind.SERVICE:
        return takes_requests(replica) and replica.ready
    return is_available(replica)


def _one_by_one(wanted: Wanted, observed: AgentObserved, old: Mapping[str, int]) -> Counts:
    """Stop first, from the highest ordinal down, one at a time, never two holders of an identity."""
    live_total = sum(observed.counts.values())
    new_now = observed.counts.get(wanted.revision, 0)
    now = {wanted.revision: new_now, **old}
    if live_total < wanted.count:
        ending = any(r.phase is Phase.STOPPING for r in observed.replicas)
        return Counts({**now, wanted.revision: new_now if ending else new_now + 1}, "an identity to be free")
    if live_total > wanted.count:
        return Counts(_without_highest(observed, now), "the highest ordinal to stop")
    proven, due_at = _proven(wanted, observed)
    # Where the engine gives the identity to the new revision by itself, it is set before its replica is there.
    if len(proven) < max(new_now, len(live(observed, wanted.revision))):
        return Counts(now, "the replaced replica to get ready", due_at)
    return Counts(_without_highest(observed, now, of=old), "the highest ordinal to stop")


def _without_highest(
    observed: AgentObserved, counts: Mapping[str, int], of: Collection[str] | None = None
) -> dict[str, int]:
    """The counts less one, for the highest ordinal that lives, of these revisions or of all."""
    targets = dict(counts)
    found = [r for r in observed.replicas if r.phase not in GONE and r.revision in (targets if of is None else of)]
    if found:
        targets[max(found, key=lambda r: r.ordinal or 0).revision] -= 1
    return targets
