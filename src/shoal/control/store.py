"""What outlives the controller: the port that control needs of a store, on every engine.

The command line writes the fleet, by compare-and-set on its generation; only the controller writes the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shoal.control.history import StoredGeneration, StoredRevision
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord
from shoal.errors import Conflict
from shoal.spec.model import Fleet

DECISIONS_KEPT = 50  # an agent


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """A secret beside its content: the HMAC that the content is kept by, who gave it, and when (epoch seconds).

    `by_hand`: by `shoal secret set`. `source_digest` is the HMAC of what its source had when that was last looked at:
    empty where it had nothing, `None` where nobody looked yet.
    """

    digest: str
    at: float
    by: str
    by_hand: bool = False
    source_digest: str | None = None


@dataclass(frozen=True, slots=True)
class StoredFleet:
    """A resolved fleet as it was stored. `generation` grows by one with each write; `fleet` is `None` after `down`.

    `directory` is where the spec's relative paths start; `by` says who stored it, for the message of a conflict.
    `secrets` is by name, and holds those too that no agent uses yet. `nonces` are of agents that were restarted.
    """

    generation: int
    fleet: Fleet | None
    directory: str
    by: str
    at: float
    secrets: Mapping[str, SecretRecord] = field(default_factory=dict[str, SecretRecord])
    nonces: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class History:
    """What was stored before, the newest first: the last generations of the fleet, and each agent's revisions."""

    generations: tuple[StoredGeneration, ...] = ()
    revisions: Mapping[str, tuple[StoredRevision, ...]] = field(default_factory=dict[str, "tuple[StoredRevision, ...]"])

    @property
    def digests(self) -> frozenset[str]:
        """The HMACs of contents that secrets had: what has to be kept to come back to them."""
        stored = [*self.generations, *(each for revisions in self.revisions.values() for each in revisions)]
        return frozenset(digest for each in stored for digest in each.digests.values() if digest)


def generation_conflict(found: int, by: str, expected: int) -> Conflict:
    """The error of a lost compare-and-set, in the words that a person needs."""
    return Conflict(
        f"the fleet changed meanwhile: generation {found} was stored by {by}, expected generation {expected}; "
        "look at `shoal plan` again, then `shoal up`"
    )


def refuse_other_secrets(found: Mapping[str, SecretRecord], expected: Mapping[str, SecretRecord] | None) -> None:
    """Raises Conflict, naming them, where there are other secrets than those that a change was made on (`None`:
    whichever)."""
    names = [] if expected is None else sorted({*found, *expected})
    changed = [name for name in names if found.get(name) != (expected or {}).get(name)]
    if changed:
        raise Conflict(f"secrets changed meanwhile: {', '.join(changed)}; nothing was stored, do it again")


class Store(Protocol):
    """Durable state of one fleet. Every method may raise StoreError."""

    async def read_fleet(self) -> StoredFleet | None: ...

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
        """Stores it as generation `expected_generation + 1` (0: there is none yet) and returns that; with it `secrets`
        and `nonces`, unless they are `None`, in place of all that there were. `what` says in the history what it was.
        Raises Conflict, naming who was first, when another generation is there, or, unless `expected_secrets` is
        `None`, other secrets: they may change without a generation."""
        ...

    async def read_history(self) -> History:
        """What was stored before; `shoal.control.history` says how much of it is kept."""
        ...

    async def read_secrets(self) -> Mapping[str, SecretRecord]:
        """By name; there may be some before the first fleet and after the last."""
        ...

    async def write_secrets(
        self,
        secrets: Mapping[str, SecretRecord],
        *,
        expected_generation: int,
        expected_secrets: Mapping[str, SecretRecord] | None = None,
    ) -> None:
        """Puts them in place of all that there were, and leaves the generation: for what changes no replica.
        Raises Conflict as `write_fleet` does."""
        ...

    async def read_records(self) -> Mapping[str, AgentRecord]: ...

    async def write(self, records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> None:
        """In one transaction: these records (`None` forgets the agent, its decisions too) and these decisions."""
        ...

    async def read_decisions(self, agent: str, last: int = DECISIONS_KEPT) -> tuple[Decision, ...]:
        """The newest first."""
        ...

    async def close(self) -> None: ...


async def named_digests(store: Store) -> frozenset[str]:
    """The HMACs of the contents that the stored fleet or its history names."""
    kept = (await store.read_secrets()).values()
    return frozenset(record.digest for record in kept) | (await store.read_history()).digests


async def keep_at_end(store: Store, *, pins: bool) -> None:
    """Leaves of the records what still holds once nothing of the fleet runs, where no controller did that."""
    records = await store.read_records()
    kept = {name: (record if pins else record.pinned(None)).kept_at_end for name, record in records.items()}
    if changed := {name: record for name, record in kept.items() if record != records[name]}:
        await store.write(changed, ())
