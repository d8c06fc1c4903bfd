"""The store of a fleet as documents: one small root, which is compare-and-set, and what it names.

The root holds small documents themselves, and of large ones the names of the parts that do; those are named by their
content and never change. A writer that dies between the two leaves parts that nobody names: a later write removes them.
Where root and parts are kept is a keeper's to know, one for each engine. Nothing here needs a volume, so the controller
may run on whichever machine.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from shoal.control.history import StoredGeneration, StoredRevision
from shoal.control.memory_store import Kept, MemoryStore
from shoal.control.store import DECISIONS_KEPT, History, SecretRecord, StoredFleet
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord
from shoal.errors import Conflict, NewerState, StoreError
from shoal.spec.model import Fleet

SCHEMA_VERSION = 1
_INLINE_BYTES = 4 * 1024  # of each document: the whole root is copied with every write
_PART_BYTES = 400 * 1024  # Docker takes half a megabyte, older ones no more, Kubernetes one of them
_ORPHAN_S = 600.0  # somebody may be about to name a younger one
_TRIES = 30
_LONGEST_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Root:
    """What the keeper has of a root: the state's version, by document what is said of it, and by `found`, which is the
    keeper's own, which of the root's versions that was."""

    schema: str
    documents: Mapping[str, str]
    found: Any


@dataclass(frozen=True, slots=True)
class Part:
    """`made_at` is by the clock of whoever keeps it: epoch seconds, to be compared among parts alone."""

    name: str
    made_at: float


class Keeper(Protocol):
    """Where one fleet's root and parts are. Methods raise EngineError where that can't be asked."""

    @property
    def where(self) -> str:
        """What messages call it."""
        ...

    async def read(self) -> Root | None:
        """`None` where there is none. Raises StoreError where there is somebody else's."""
        ...

    async def make(self, schema: str) -> Root:
        """An empty one; of several at once one makes it."""
        ...

    async def write(self, root: Root, documents: Mapping[str, str]) -> None:
        """Raises Conflict where somebody wrote it after `root` was read."""
        ...

    async def part(self, name: str) -> bytes | None:
        """`None` where it is gone."""
        ...

    async def put_part(self, document: str, digest: str, content: bytes) -> str:
        """Its name, which no other content has; there may be one already."""
        ...

    async def parts(self) -> Sequence[Part]: ...

    async def remove_part(self, name: str) -> None:
        """Gone already is fine."""
        ...


class _PartGoneError(Exception):
    """Another one took its place since the root was read."""


@dataclass(frozen=True, slots=True)
class _Stored:
    fleet: StoredFleet | None = None
    secrets: Mapping[str, SecretRecord] = field(default_factory=dict[str, SecretRecord])
    nonces: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class _Past:
    generations: list[StoredGeneration] = field(default_factory=list[StoredGeneration])
    revisions: dict[str, list[StoredRevision]] = field(default_factory=dict[str, list[StoredRevision]])


_DECISIONS = tuple(f"decisions-{part:x}" for part in range(16))  # one that is added writes a sixteenth of all anew
_KINDS: Mapping[str, TypeAdapter[Any]] = {
    "fleet": TypeAdapter(_Stored),
    "history": TypeAdapter(_Past),
    "records": TypeAdapter(dict[str, AgentRecord]),
    **dict.fromkeys(_DECISIONS, TypeAdapter(dict[str, list[Decision]])),
}
_EMPTY: Mapping[str, Callable[[], Any]] = {"fleet": _Stored, "history": _Past}


class DocumentStore:
    """See `shoal.control.store.Store`. Methods raise EngineError where the keeper's engine can't be asked, too."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._read: dict[str, tuple[str, Any]] = {}  # by document: what the root said of it, and what it held

    async def read_fleet(self) -> StoredFleet | None:
        return await MemoryStore(await self._load("fleet")).read_fleet()

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
        async def write(store: MemoryStore) -> None:
            await store.write_fleet(
                fleet,
                directory=directory,
                by=by,
                at=at,
                expected_generation=expected_generation,
                secrets=secrets,
                expected_secrets=expected_secrets,
                nonces=nonces,
                what=what,
            )

        await self._change(write, "fleet", "history")
        return expected_generation + 1

    async def read_history(self) -> History:
        return await MemoryStore(await self._load("history")).read_history()

    async def read_secrets(self) -> Mapping[str, SecretRecord]:
        return await MemoryStore(await self._load("fleet")).read_secrets()

    async def write_secrets(
        self,
        secrets: Mapping[str, SecretRecord],
        *,
        expected_generation: int,
        expected_secrets: Mapping[str, SecretRecord] | None = None,
    ) -> None:
        async def write(store: MemoryStore) -> None:
            await store.write_secrets(
                secrets, expected_generation=expected_generation, expected_secrets=expected_secrets
            )

        await self._change(write, "fleet")

    async def read_records(self) -> Mapping[str, AgentRecord]:
        return await MemoryStore(await self._load("records")).read_records()

    async def write(self, records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> None:
        async def write(store: MemoryStore) -> None:
            await store.write(records, decisions)

        forgotten = {agent for agent, record in records.items() if record is None}
        parts = {_decisions_of(agent) for agent in forgotten | {decision.agent for decision in decisions}}
        await self._change(write, "records", *sorted(parts))

    async def read_decisions(self, agent: str, last: int = DECISIONS_KEPT) -> tuple[Decision, ...]:
        return await MemoryStore(await self._load(_decisions_of(agent))).read_decisions(agent, last)

    async def close(self) -> None:
        return

    # Documents.

    async def _load(self, *documents: str) -> Kept:
        """What these documents hold; the others are empty."""
        for _ in range(_TRIES):
            try:
                return await self._load_from(await self._keeper.read(), *documents)
            except _PartGoneError:
                continue
        raise StoreError(f"{self._keeper.where}: a part of the state is gone; `shoal up` starts with what runs")

    async def _load_from(self, root: Root | None, *documents: str) -> Kept:
        told: Mapping[str, str] = {} if root is None else root.documents
        if root is not None:
            self._check_schema(root.schema)
        return _kept({name: await self._document(name, told.get(name, "")) for name in documents})

    async def _change(self, work: Callable[[MemoryStore], Awaitable[None]], *documents: str) -> None:
        """Does the work on these documents and writes what came of it, as often as somebody else was first. Raises
        what the work raises."""
        for attempt in range(_TRIES):
            root = await self._keeper.read() or await self._keeper.make(str(SCHEMA_VERSION))
            try:
                kept = await self._load_from(root, *documents)
            except _PartGoneError:
                continue
            await work(MemoryStore(kept))
            new = {name: await self._put(name, _part(kept, name)) for name in documents}
            told = {**root.documents, **new}
            if told == root.documents:
                return
            try:
                await self._keeper.write(root, told)
            except Conflict:
                await asyncio.sleep(random.uniform(0, min(_LONGEST_WAIT_S, 0.01 * 2**attempt)))
                continue
            for name, said in new.items():
                self._read[name] = (said, _part(kept, name))
            await self._tidy(told, replaced=[root.documents.get(name, "") for name in new])
            return
        raise StoreError(f"{self._keeper.where}: {_TRIES} others in a row wrote the state first; try it again")

    async def _document(self, name: str, told: str) -> Any:
        if not told:
            return _EMPTY.get(name, dict)()
        known = self._read.get(name)
        if known is not None and known[0] == told:
            return known[1]
        try:
            value = _KINDS[name].validate_json(zlib.decompress(await self._fetch(told)))
        except (ValidationError, ValueError, zlib.error) as error:
            raise StoreError(
                f"{self._keeper.where}: this Shoal can't read what is stored as {name}: {error}; use the one that "
                "wrote it"
            ) from error
        self._read[name] = (told, value)
        return value

    async def _fetch(self, told: str) -> bytes:
        if told.startswith("z:"):
            return base64.b64decode(told[2:])
        contents: list[bytes] = []
        for name in told.split(","):
            content = await self._keeper.part(name)
            if content is None:
                raise _PartGoneError
            contents.append(content)
        return b"".join(contents)

    async def _put(self, name: str, value: Any) -> str:
        """What the root says of a document: itself, or the parts that hold it."""
        content = zlib.compress(_KINDS[name].dump_json(value, by_alias=True), 6)
        if len(content) <= _INLINE_BYTES:
            return f"z:{base64.b64encode(content).decode()}"
        named: list[str] = []
        for start in range(0, len(content), _PART_BYTES):
            part = content[start : start + _PART_BYTES]
            named.append(await self._keeper.put_part(name, hashlib.sha256(part).hexdigest()[:16], part))
        return ",".join(named)

    async def _tidy(self, documents: Mapping[str, str], replaced: Sequence[str]) -> None:
        """Removes the parts that were replaced, and those that somebody left behind."""
        named, old = _parts_in(documents.values()), _parts_in(replaced)
        if not old:
            return
        parts = await self._keeper.parts()
        newest = max((part.made_at for part in parts), default=0.0)
        for part in parts:
            if part.name not in named and (part.name in old or newest - part.made_at > _ORPHAN_S):
                await self._keeper.remove_part(part.name)

    def _check_schema(self, found: str) -> None:
        if not found.isdigit() or int(found) > SCHEMA_VERSION:
            raise NewerState(
                f"{self._keeper.where}: written by a newer Shoal (state version {found}, this one knows "
                f"{SCHEMA_VERSION}); use that Shoal"
            )


def _parts_in(documents: Iterable[str]) -> set[str]:
    return {name for told in documents if told and not told.startswith("z:") for name in told.split(",")}


def _kept(documents: Mapping[str, Any]) -> Kept:
    """A copy that may be changed."""
    kept = Kept()
    if (stored := documents.get("fleet")) is not None:
        kept.fleet, kept.secrets, kept.nonces = stored.fleet, stored.secrets, stored.nonces
    if (past := documents.get("history")) is not None:
        kept.generations = list(past.generations)
        kept.revisions = {agent: list(revisions) for agent, revisions in past.revisions.items()}
    records: dict[str, AgentRecord] = documents.get("records", {})
    kept.records = dict(records)
    for name in _DECISIONS:
        decisions: dict[str, list[Decision]] = documents.get(name, {})
        kept.decisions |= {agent: list(found) for agent, found in decisions.items()}
    return kept


def _part(kept: Kept, name: str) -> Any:
    if name == "fleet":
        return _Stored(kept.fleet, kept.secrets, kept.nonces)
    if name == "history":
        return _Past(kept.generations, kept.revisions)
    if name == "records":
        return kept.records
    return {agent: found for agent, found in kept.decisions.items() if _decisions_of(agent) == name}


def _decisions_of(agent: str) -> str:
    """The document that holds the agent's decisions."""
    return _DECISIONS[hashlib.sha256(agent.encode()).digest()[0] % len(_DECISIONS)]
