"""A change that starts from what is stored, not from the file: back to an earlier version, or the same one anew."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.home import describe_known
from shoal.cli.losses import refuse_losses
from shoal.cli.options import Common
from shoal.cli.plan import Intent, colour_plan, compare
from shoal.cli.stored_fleet import new_nonces
from shoal.control.store import History, SecretRecord, StoredFleet
from shoal.core.record import AgentRecord
from shoal.errors import NotFound, PlanError, no_such_agent
from shoal.spec.model import Agent, Broker, Fleet, Kind, Queue

if TYPE_CHECKING:
    from shoal.cli.place import Contents, Place
    from shoal.control.history import StoredGeneration, StoredRevision


@dataclass(frozen=True, slots=True)
class Past:
    """The fleet that is stored, what was before it, and what the controller noted of each agent."""

    place: Place
    contents: Contents
    stored: StoredFleet
    fleet: Fleet
    history: History
    records: Mapping[str, AgentRecord]

    def served(self, agent: str, revision: str) -> bool | None:
        """Whether the revision ever did its work; `None` where that is not known, or not yet."""
        record = self.records.get(agent)
        known = record.known_to_serve if record is not None else None
        rollout = record.rollout if record is not None else None
        goes_on = rollout is not None and rollout.finished_at is None and rollout.revision == revision
        return None if known is None or (goes_on and revision not in known) else revision in known


async def read_past(place: Place) -> Past:
    """Raises NotFound where no fleet is stored."""
    async with place.store() as store:
        stored, history, records = await store.read_fleet(), await store.read_history(), await store.read_records()
    if stored is None or stored.fleet is None:
        raise NotFound(f"no fleet {place.fleet} is stored here; `shoal up` starts one ({describe_known(os.environ)})")
    return Past(place, await place.contents(), stored, stored.fleet, history, records)


def restart_intent(past: Past, agents: Sequence[str]) -> Intent:
    """New replicas of the same version for these agents. Raises NotFound."""
    stored = past.stored
    for name in agents:
        if _agent(past.fleet, name).kind is Kind.JOB:
            raise NotFound(f"{name!r} is a job, which has no replicas to restart; `shoal run {name}` runs it now")
    nonces = {**stored.nonces, **new_nonces(agents)}
    return _intent(past, past.fleet, stored.secrets, nonces, f"restart {' '.join(agents)}")


def undo_agent_intent(past: Past, name: str, to: int | None) -> Intent:
    """One agent as it was in an earlier revision, but for what restarts nothing; by default the last one that served.
    Raises NotFound, PlanError."""
    from shoal.core.plan import keep_live

    now = _agent(past.fleet, name)
    wanted = _earlier_revision(past, name, to)
    agent = keep_live(wanted.spec, now)
    fleet = _with_agent(past.fleet, name, agent)
    nonces = {**past.stored.nonces, name: wanted.nonce}
    records = _earlier_secrets(past, wanted.digests)
    return _intent(past, fleet, records, nonces, f"undo {name} to {wanted.generation}")


def undo_fleet_intent(past: Past, to: int | None) -> Intent:
    """The whole fleet as it was in an earlier generation; by default the last one that served and was another.
    Raises NotFound, PlanError."""
    wanted = _earlier_generation(past, to)
    used = {secret.name for agent in wanted.fleet.agents.values() for secret in agent.secrets}
    digests = {name: digest for name, digest in wanted.digests.items() if name in used}
    records = _earlier_secrets(past, digests)
    return _intent(past, wanted.fleet, records, wanted.nonces, f"undo to {wanted.generation}")


def carry_out(
    common: Common, intent: Intent, agents: Sequence[str], timeout_s: float, *, yes: bool, allow_delete: bool = False
) -> int:
    """Shows the plan, stores it and waits until it is carried out; gives the exit code."""
    from shoal.cli.up import confirm, up_detached

    if common.output == "text":
        click.echo(colour_plan(intent.plan), err=True)
    if not allow_delete:
        asyncio.run(refuse_losses(intent))
    confirm(intent, yes)
    return asyncio.run(up_detached(common, intent, tuple(agents), timeout_s))


def _intent(
    past: Past, fleet: Fleet, records: Mapping[str, SecretRecord], nonces: Mapping[str, str], what: str
) -> Intent:
    from shoal.cli.secret_values import Choice, Choices

    stored = past.stored
    changed = {name for name, record in records.items() if _digest(stored, name) not in ("", record.digest)}
    restarted = _restarted(stored, fleet, nonces, changed)
    choices = Choices({name: Choice(kept=record) for name, record in records.items()}, frozenset(changed))
    made = compare(past.place, past.contents, past.fleet, fleet, choices, past.records, nonces, restarted=restarted)
    kept = {name: nonce for name, nonce in nonces.items() if nonce and name in fleet.agents}
    return Intent(
        past.place, Path(stored.directory), fleet, choices, made, stored.generation, stored.secrets,
        nonces=kept, what=what,
    )  # fmt: skip


def _restarted(
    stored: StoredFleet, fleet: Fleet, nonces: Mapping[str, str], changed: Collection[str]
) -> tuple[str, ...]:
    """The agents that get new replicas for no other reason than their nonce."""
    assert stored.fleet is not None
    return tuple(
        name
        for name, agent in fleet.agents.items()
        if name in stored.fleet.agents
        and nonces.get(name, "") != stored.nonces.get(name, "")
        and agent == stored.fleet.agents[name]
        and not any(secret.name in changed for secret in agent.secrets)
    )


def _earlier_revision(past: Past, name: str, to: int | None) -> StoredRevision:
    wished = current_revision(past.stored, name)
    before = [each for each in past.history.revisions.get(name, ()) if each.revision != wished]
    served = [each for each in before if past.served(name, each.revision) is not False]
    wanted = next((each for each in (before if to is not None else served) if to in (None, each.generation)), None)
    if wanted is None:
        raise NotFound(_nothing_to_undo(name, to, [each.generation for each in before]))
    return wanted


def _earlier_generation(past: Past, to: int | None) -> StoredGeneration:
    now = _revisions(past.fleet, _digests(past.stored), past.stored.nonces)
    before = [each for each in past.history.generations if each.generation < past.stored.generation]
    served = (
        each
        for each in before
        if (each.fleet != past.fleet or _revisions(each.fleet, each.digests, each.nonces) != now)
        and all(
            past.served(name, revision) is not False
            for name, revision in _revisions(each.fleet, each.digests, each.nonces).items()
        )
    )
    wanted = next((each for each in (before if to is not None else served) if to in (None, each.generation)), None)
    if wanted is None:
        raise NotFound(_nothing_to_undo("the fleet", to, [each.generation for each in before]))
    return wanted


def _revisions(fleet: Fleet, digests: Mapping[str, str], nonces: Mapping[str, str]) -> dict[str, str]:
    return {name: _revision(fleet, name, digests, nonces) for name in fleet.agents}


def _revision(fleet: Fleet, name: str, digests: Mapping[str, str], nonces: Mapping[str, str]) -> str:
    from shoal.core.revision import revision_of, template_of

    return revision_of(template_of(fleet, name, digests, nonces.get(name, "")))


def current_revision(stored: StoredFleet, name: str) -> str:
    """The revision of an agent that is wished now."""
    assert stored.fleet is not None
    return _revision(stored.fleet, name, _digests(stored), stored.nonces)


def _with_agent(fleet: Fleet, name: str, agent: Agent) -> Fleet:
    """The fleet with another version of one agent, and the queues that this needs."""
    from shoal.spec.checks import with_credentials

    missing = [each for each in agent.calls if each not in fleet.agents and each not in fleet.external]
    if missing:
        raise PlanError(
            f"agents.{name}: that version calls {', '.join(missing)}, which the fleet does not have any more; "
            "`shoal rollout undo` without an agent takes all of the fleet back"
        )
    queues = dict(fleet.queues)
    for queue in (*([agent.queue] if agent.queue else []), *agent.publishes):
        queues.setdefault(queue, Queue())
    brokers = dict(fleet.brokers)
    for queue in queues.values():
        brokers.setdefault(queue.broker, Broker())
    agent = with_credentials(agent, queues, brokers)
    return fleet.model_copy(update={"agents": {**fleet.agents, name: agent}, "queues": queues, "brokers": brokers})


def _earlier_secrets(past: Past, digests: Mapping[str, str]) -> dict[str, SecretRecord]:
    """The secrets with the contents that they had. They stand until their source says something else than now."""
    from shoal.cli.stored_fleet import who_am_i

    stored, records = past.stored, dict(past.stored.secrets)
    for name, digest in digests.items():
        if _digest(stored, name) == digest or not digest:
            continue
        if not past.contents.has(name, digest):
            raise PlanError(
                f"secrets.{name}: what it held then is not kept any more; give it by `shoal secret set {name}`, and "
                "change the file instead"
            )
        known = stored.secrets.get(name)
        source = known.source_digest or known.digest if known is not None else None
        records[name] = SecretRecord(digest, time.time(), who_am_i(), by_hand=True, source_digest=source)
    return records


def _digests(stored: StoredFleet) -> dict[str, str]:
    return {name: record.digest for name, record in stored.secrets.items()}


def _digest(stored: StoredFleet, name: str) -> str:
    record = stored.secrets.get(name)
    return record.digest if record is not None else ""


def _agent(fleet: Fleet, name: str) -> Agent:
    if name not in fleet.agents:
        raise no_such_agent(name, fleet.agents)
    return fleet.agents[name]


def _nothing_to_undo(what: str, to: int | None, generations: Sequence[int]) -> str:
    if not generations:
        return f"{what} has nothing to come back to: nothing was stored before"
    kept = ", ".join(str(each) for each in generations)
    if to is None:
        return (
            f"{what} has nothing else to come back to that served; --to brings a generation back all the same: {kept}"
        )
    return f"{what} can't be brought back to generation {to}; those that are kept and differ: {kept}"
