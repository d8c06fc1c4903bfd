"""A store of values: what is kept and how it changes. For tests and simulation, and for stores that keep it as a whole
somewhere else. Held to the same contract as the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from shoal.control.history import REVISIONS_KEPT, StoredGeneration, StoredRevision, new_revisions
from shoal.control.store import (
    DECISIONS_KEPT,
    History,
    SecretRecord,
    StoredFleet,
    generation_conflict,
    refuse_other_secrets,
)
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord
from shoal.spec.model import Fleet


@dataclass(slots=True)
class Kept:
    """All that a store keeps. `generations` and each agent's `revisions` and `decisions` have the newest first."""

    fleet: StoredFleet | None = None
    secrets: Mapping[str, SecretRecord] = field(default_factory=dict[str, SecretRecord])
    nonces: Mapping[str, str] = field(default_factory=dict[str, str])
    generations: list[StoredGeneration] = field(default_factory=list[StoredGeneration])
    revisions: dict[str, list[StoredRevision]] = field(default_factory=dict[str, list[StoredRevision]])
    records: dict[str, AgentRecord] = field(default_factory=dict[str, AgentRecord])
    decisions: dict[str, list[Decision]] = field(default_factory=dict[str, list[Decision]])


class MemoryStore:
    """See `shoal.control.store.Store`. `kept` is what it begins with and what it changes."""

    def __init__(self, kept: Kept | None = None) -> None:
        self.kept = kept or Kept()

    async def read_fleet(self) -> StoredFleet | None:
        kept = self.kept
        return None if kept.fleet is None else replace(kept.fleet, secrets=kept.secrets, nonces=kept.nonces)

    async def write_fleet(
        self,
        fleet: Fleet | None,
        *,
        directory: str,
        by: str,
        at: float,
        expected_generation: int,
        secrets: Mapping[str, SecretRecord] | None = None,
        expected_secrets: Mapping[str, SecretRecord] | None = None,
        nonces: Mapping[str, str] | None = None,
        what: str = "",
    ) -> int:
        self._compare(expected_generation, expected_secrets)
        self.kept.fleet = StoredFleet(expected_generation + 1, fleet, directory, by, at)
        self.kept.secrets = self.kept.secrets if secrets is None else dict(secrets)
        self.kept.nonces = self.kept.nonces if nonces is None else dict(nonces)
        if fleet is not None:
            digests = {name: record.digest for name, record in self.kept.secrets.items()}
            self._note(StoredGeneration(expected_generation + 1, at, by, fleet, self.kept.nonces, digests, what))
        return expected_generation + 1

    def _note(self, stored: StoredGeneration) -> None:
        for new in new_revisions(self.kept.generations[0] if self.kept.generations else None, stored):
            known = [each for each in self.kept.revisions.get(new.agent, ()) if each.revision != new.revision]
            self.kept.revisions[new.agent] = [new, *known][:REVISIONS_KEPT]
        for agent in self.kept.revisions.keys() - stored.fleet.agents.keys():
            del self.kept.revisions[agent]
        self.kept.generations = [stored, *self.kept.generations][:REVISIONS_KEPT]

    async def read_history(self) -> History:
        revisions = {agent: tuple(stored) for agent, stored in self.kept.revisions.items()}
        return History(tuple(self.kept.generations), revisions)

    async def read_secrets(self) -> Mapping[str, SecretRecord]:
        return dict(self.kept.secrets)

    async def write_secrets(
        self,
        secrets: Mapping[str, SecretRecord],
        *,
        expected_generation: int,
        expected_secrets: Mapping[str, SecretRecord] | None = None,
    ) -> None:
        self._compare(expected_generation, expected_secrets)
        self.kept.secrets = dict(secrets)

    def _compare(self, expected: int, secrets: Mapping[str, SecretRecord] | None) -> None:
        found, who = (self.kept.fleet.generation, self.kept.fleet.by) if self.kept.fleet else (0, "nobody")
        if found != expected:
            raise generation_conflict(found, who, expected)
        refuse_other_secrets(self.kept.secrets, secrets)

    async def read_records(self) -> Mapping[str, AgentRecord]:
        return dict(self.kept.records)

    async def write(self, records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> None:
        for agent, record in records.items():
            if record is None:
                self.kept.records.pop(agent, None)
                self.kept.decisions.pop(agent, None)
            else:
                self.kept.records[agent] = record
        for decision in decisions:
            kept = self.kept.decisions.setdefault(decision.agent, [])
            kept.insert(0, decision)
            del kept[DECISIONS_KEPT:]

    async def read_decisions(self, agent: str, last: int = DECISIONS_KEPT) -> tuple[Decision, ...]:
        return tuple(self.kept.decisions.get(agent, ())[:last])

    async def close(self) -> None:
        return
