"""A store of values, for tests and simulation. Shipped, and held to the same contract as the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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


class MemoryStore:
    """See `shoal.control.store.Store`."""

    def __init__(self) -> None:
        self._fleet: StoredFleet | None = None
        self._secrets: Mapping[str, SecretRecord] = {}
        self._nonces: Mapping[str, str] = {}
        self._generations: list[StoredGeneration] = []  # the newest first
        self._revisions: dict[str, list[StoredRevision]] = {}
        self._records: dict[str, AgentRecord] = {}
        self._decisions: dict[str, list[Decision]] = {}

    async def read_fleet(self) -> StoredFleet | None:
        return None if self._fleet is None else replace(self._fleet, secrets=self._secrets, nonces=self._nonces)

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
        self._fleet = StoredFleet(expected_generation + 1, fleet, directory, by, at)
        self._secrets = self._secrets if secrets is None else dict(secrets)
        self._nonces = self._nonces if nonces is None else dict(nonces)
        if fleet is not None:
            digests = {name: record.digest for name, record in self._secrets.items()}
            self._note(StoredGeneration(expected_generation + 1, at, by, fleet, self._nonces, digests, what))
        return expected_generation + 1

    def _note(self, stored: StoredGeneration) -> None:
        for new in new_revisions(self._generations[0] if self._generations else None, stored):
            known = [each for each in self._revisions.get(new.agent, ()) if each.revision != new.revision]
            self._revisions[new.agent] = [new, *known][:REVISIONS_KEPT]
        for agent in self._revisions.keys() - stored.fleet.agents.keys():
            del self._revisions[agent]
        self._generations = [stored, *self._generations][:REVISIONS_KEPT]

    async def read_history(self) -> History:
        return History(tuple(self._generations), {agent: tuple(kept) for agent, kept in self._revisions.items()})

    async def read_secrets(self) -> Mapping[str, SecretRecord]:
        return dict(self._secrets)

    async def write_secrets(
        self,
        secrets: Mapping[str, SecretRecord],
        *,
        expected_generation: int,
        expected_secrets: Mapping[str, SecretRecord] | None = None,
    ) -> None:
        self._compare(expected_generation, expected_secrets)
        self._secrets = dict(secrets)

    def _compare(self, expected: int, secrets: Mapping[str, SecretRecord] | None) -> None:
        found, who = (self._fleet.generation, self._fleet.by) if self._fleet else (0, "nobody")
        if found != expected:
            raise generation_conflict(found, who, expected)
        refuse_other_secrets(self._secrets, secrets)

    async def read_records(self) -> Mapping[str, AgentRecord]:
        return dict(self._records)

    async def write(self, records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> None:
        for agent, record in records.items():
            if record is None:
                self._records.pop(agent, None)
                self._decisions.pop(agent, None)
            else:
                self._records[agent] = record
        for decision in decisions:
            kept = self._decisions.setdefault(decision.agent, [])
            kept.insert(0, decision)
            del kept[DECISIONS_KEPT:]

    async def read_decisions(self, agent: str, last: int = DECISIONS_KEPT) -> tuple[Decision, ...]:
        return tuple(self._decisions.get(agent, ())[:last])

    async def close(self) -> None:
        return
