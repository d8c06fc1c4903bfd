"""From what is wished and what is there to the next actions for one agent: one step at a time, each safe by itself.

The order that fails no request: a new replica serves before an old one leaves; a replica that takes requests is first
taken out of the gateway (`leaving`), and told to stop only when every gateway has acknowledged that (`left`).
Asked again with the same input, the answer is the same, so a controller that dies between two steps loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shoal.core.action import Action, Autoscale, EnsureRevision, Remove, Scale
from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.core.rollout_counts import Wanted, live, next_counts, takes_requests
from shoal.spec.model import Kind

__all__ = ["Step", "Wanted", "choose_victims", "reconcile", "reconcile_removed", "takes_requests"]


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now. `serving` are the replicas that the gateway should send to, `leaving` those that it should not
    any more although they live. `settled`: nothing is left to do; `waiting_for` says in words for what else; `due_at`
    is the epoch second at which the answer could change on equal input."""

    actions: tuple[Action, ...]
    serving: tuple[Replica, ...]
    leaving: frozenset[str]
    settled: bool
    waiting_for: str = ""
    due_at: float | None = None


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
    counts = next_counts(wanted, observed, leaving, healthy)
    told: list[Action] = []
    if wanted.ensure or wanted.revision not in observed.counts:
        told.append(EnsureRevision(wanted.agent, wanted.revision, wanted.template, wanted.environment))
    if observed.autoscaler is not None and not _keeps_autoscaler(wanted, observed):
        return _take_back(wanted, observed, told, leaving)
    actions: list[Action] = []
    now_leaving: set[str] = set()
    for revision, target in counts.of.items():
        scale, revision_leaving = _scale(wanted, observed, revision, target, leaving, left, chooses_victims)
        now_leaving |= revision_leaving
        if scale is not None:
            actions.append(_taking(scale, wanted, observed))
    actions += [
        Remove(wanted.agent, revision)
        for revision, count in observed.counts.items()
        if revision not in (wanted.revision, wanted.stable) and count == 0 and not _in_use(observed, revision)
    ]
    serving = tuple(r for r in observed.replicas if takes_requests(r) and r.id not in now_leaving)
    if wanted.autoscale is not None and not actions and not now_leaving:
        if observed.autoscaler is None:
            actions.append(Autoscale(wanted.agent, wanted.revision, wanted.autoscale))
        elif wanted.ensure:
            told.append(Autoscale(wanted.agent, wanted.revision, wanted.autoscale))
    settled = not actions and not now_leaving and _at_rest(wanted, observed, serving, healthy)
    return Step(
        (*told, *actions),
        serving,
        frozenset(now_leaving),
        settled,
        "" if settled else counts.waiting_for,
        counts.due_at,
    )


def _keeps_autoscaler(wanted: Wanted, observed: AgentObserved) -> bool:
    """Whether the engine's autoscaler may go on: only while nobody else has to set a count."""
    others = any(count for revision, count in observed.counts.items() if revision != wanted.revision)
    scaler = observed.autoscaler
    return wanted.autoscale is not None and scaler is not None and scaler.revision == wanted.revision and not others


def _take_back(wanted: Wanted, observed: AgentObserved, told: Sequence[Action], leaving: frozenset[str]) -> Step:
    """A count is set by one alone: until the engine's autoscaler is seen to be gone Shoal sets none."""
    serving = tuple(r for r in observed.replicas if takes_requests(r) and r.id not in leaving)
    leaves = frozenset(r.id for r in observed.replicas if takes_requests(r) and r.id in leaving)
    actions = (*told, Autoscale(wanted.agent))
    return Step(actions, serving, leaves, settled=False, waiting_for="its autoscaler to let go of its count")


def reconcile_removed(agent: str, observed: AgentObserved, *, leaving: frozenset[str], left: frozenset[str]) -> Step:
    """The next step of an agent that is not in the fleet any more: drained, stopped, forgotten."""
    in_service = frozenset(r.id for r in observed.replicas if takes_requests(r))
    waiting = in_service - left
    if waiting:
        return Step((), (), in_service, settled=False, waiting_for=f"{len(waiting)} to leave the gateway")
    gone = not observed.replicas and not observed.counts and not observed.runs
    actions: tuple[Action, ...] = () if gone else (Remove(agent),)
    return Step(actions, (), in_service & leaving, settled=gone, waiting_for="" if gone else "replicas to end")


def _in_use(observed: AgentObserved, revision: str) -> bool:
    """Whether a replica is of it, or a run that what was a job has begun."""
    runs = (run for run in observed.runs if run.phase not in (Phase.SUCCEEDED, Phase.FAILED))
    return any(each.revision == revision for each in (*observed.replicas, *runs))


def _scale(
    wanted: Wanted,
    observed: AgentObserved,
    revision: str,
    target: int,
    leaving: frozenset[str],
    left: frozenset[str],
    chooses_victims: bool,
) -> tuple[Scale | None, frozenset[str]]:
    """Sets one revision's count, by way of the drain where replicas have to go.

    An engine that chooses by itself who goes can be drained for all the same where there is no choice: nobody is to
    stay, or identities go from the highest down.
    """
    count = observed.counts.get(revision, 0)
    claims = wanted.claims and revision == wanted.revision
    if target > count or (target == count and claims):
        return Scale(wanted.agent, revision, target), frozenset()
    stateful, there = wanted.template.stateful, live(observed, revision)
    told = max(0, len(there) - count)  # to end, by a count before, and the engine has not come to it
    if target == count:
        going = choose_victims(there, told, leaving, stateful=stateful)
        return None, leaving.intersection(r.id for r in going)
    if not chooses_victims and target and not stateful:
        return Scale(wanted.agent, revision, target), frozenset()
    victims = choose_victims(there, count - target + told, leaving, stateful=stateful)
    at_once = [r.id for r in victims if not takes_requests(r) or r.id in left]
    # One that does not serve may come to before it is ended: it is not sent anything either.
    draining = frozenset(r.id for r in victims if wanted.template.port is not None)
    # A count above the live replicas (the engine has not made them yet) needs no victim to come down.
    stop_count = count - max(0, len(at_once) - told) - max(0, count - target - len(victims))
    if stop_count == count or (stop_count > target and not chooses_victims and not stateful):
        return None, draining
    return Scale(wanted.agent, revision, stop_count, tuple(at_once)), draining


def _taking(scale: Scale, wanted: Wanted, observed: AgentObserved) -> Scale:
    """With who has the count now; a stateful agent has one for all revisions."""
    of_all = next(iter(observed.owners.values()), None) if wanted.template.stateful else None
    owner = observed.owners.get(scale.revision, of_all)
    return scale if owner is None else replace(scale, taken_from=owner)


def choose_victims(
    live: Sequence[Replica], number: int, leaving: frozenset[str], *, stateful: bool
) -> tuple[Replica, ...]:
    """Who goes: what does not work, then those already on their way, then the youngest; for stateful agents the highest
    ordinals."""
    if stateful:
        ordered = sorted(live, key=lambda r: -(r.ordinal or 0))
    else:
        ordered = sorted(live, key=lambda r: (r.ready, r.id not in leaving, takes_requests(r), -r.created_at, r.id))
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
