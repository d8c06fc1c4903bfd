"""A store of values, for tests and simulation. Shipped, and held to the same contract as the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shoal.control.store import DECISIONS_KEPT, SecretRecord, StoredFleet, generation_conflict
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord
from shoal.spec.model import Fleet


class MemoryStore:
    """See `shoal.control.store.Store`."""

    def __init__(self) -> None:
        self._fleet: StoredFleet | None = None
        self._secrets: Mapping[str, SecretRecord] = {}
        self._records: dict[str, AgentRecord] = {}
        self._decisions: dict[str, list[Decision]] = {}

    async def read_fleet(self) -> StoredFleet | None:
        return None if self._fleet is None else replace(self._fleet, secrets=self._secrets)

    async def write_fleet(
        self,
        fleet: Fleet | None,
        *,
        directory: str,
        by: str,
        at: float,
        expected_generation: int,
        secrets: Mapping[str, SecretRecord] | None = None,
    ) -> int:
        self._compare(expected_generation)
        self._fleet = StoredFleet(expected_generation + 1, fleet, directory, by, at)
        if secrets is not None:
            self._secrets = dict(secrets)
        return expected_generation + 1

    async def read_secrets(self) -> Mapping[str, SecretRecord]:
        return dict(self._secrets)

    async def write_secrets(self, secrets: Mapping[str, SecretRecord], *, expected_generation: int) -> None:
        self._compare(expected_generation)
        self._secrets = dict(secrets)

    def _compare(self, expected: int) -> None:
        found, who = (self._fleet.generation, self._fleet.by) if self._fleet else (0, "nobody")
        if found != expected:
            raise generation_conflict(found, who, expected)

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
