"""The store of a fleet on Docker Swarm: a service without replicas, whose version index is compare-and-set.

Its labels hold small documents themselves, and of large ones the names of the configs that do; those are named by their
content and never change. A writer that dies between the two leaves configs that nobody names: a later write removes
them. Nothing here needs a volume, so the controller may run on whichever manager.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from shoal.control.history import StoredGeneration, StoredRevision
from shoal.control.memory_store import Kept, MemoryStore
from shoal.control.store import DECISIONS_KEPT, History, SecretRecord, StoredFleet
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord
from shoal.engines.swarm.docker import DockerError
from shoal.engines.swarm.names import FLEET, Role, fleet_labels, object_name, own_name
from shoal.errors import Conflict, NewerState, StoreError
from shoal.spec.model import Fleet

SCHEMA_VERSION = 1
_SCHEMA = "shoal.schema"
_DOCUMENT = "shoal.document."
_INLINE_BYTES = 4 * 1024  # of each document: all labels are copied with every write of the service
_CONFIG_BYTES = 400 * 1024  # Docker takes half a megabyte, older ones no more
_ORPHAN_S = 600.0  # somebody may be about to name a younger one
_TRIES = 30
_LONGEST_WAIT_S = 0.5
_NO_LABELS: Mapping[str, str] = {}


class Keeper(Protocol):
    """What it takes of `Docker` to keep the state: services and configs."""

    async def service(self, name: str) -> dict[str, Any]: ...

    async def create_service(self, spec: Mapping[str, Any]) -> str: ...

    async def write_service(self, service_id: str, version: int, spec: Mapping[str, Any]) -> None: ...

    async def update_service(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> bool: ...

    async def config(self, name: str) -> dict[str, Any]: ...

    async def configs(self, labels: Mapping[str, str]) -> list[dict[str, Any]]: ...

    async def create_config(self, name: str, data: bytes, labels: Mapping[str, str]) -> str: ...

    async def remove_config(self, name: str) -> None: ...


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


class SwarmStore:
    """See `shoal.control.store.Store`. Methods raise EngineError where Swarm can't be asked, too."""

    def __init__(self, docker: Keeper, fleet: str, clock: Callable[[], float] = time.time) -> None:
        self._docker, self._fleet, self._clock = docker, fleet, clock
        self._name = own_name(fleet, Role.STATE.value)
        self._read: dict[str, tuple[str, Any]] = {}  # by document: what its label said, and what it held

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

    async def _load(self, *documents: str, labels: Mapping[str, str] | None = None) -> Kept:
        """What these documents hold; the others are empty."""
        for _ in range(_TRIES):
            service = None if labels is not None else await self._service()
            told = labels if labels is not None else (service["Spec"]["Labels"] if service else _NO_LABELS)
            self._check_schema(told)
            try:
                return _kept({name: await self._document(name, told.get(_DOCUMENT + name, "")) for name in documents})
            except DockerError as error:
                if error.status != 404 or labels is not None:
                    raise
                # another one took its place since the labels were read
        raise StoreError(f"{self._name}: a part of the state is gone from the Swarm; `shoal up` starts with what runs")

    async def _change(self, work: Callable[[MemoryStore], Awaitable[None]], *documents: str) -> None:
        """Does the work on these documents and writes what came of it, as often as somebody else was first. Raises
        what the work raises."""
        for attempt in range(_TRIES):
            service = await self._service() or await self._make()
            labels = service["Spec"]["Labels"]
            try:
                kept = await self._load(*documents, labels=labels)
            except DockerError as error:
                if error.status != 404:
                    raise
                continue
            await work(MemoryStore(kept))
            new = {name: await self._put(name, _part(kept, name)) for name in documents}
            spec = {**service["Spec"], "Labels": {**labels, **{_DOCUMENT + name: told for name, told in new.items()}}}
            if spec["Labels"] == labels:
                return
            try:
                await self._docker.write_service(service["ID"], service["Version"]["Index"], spec)
            except Conflict:
                await asyncio.sleep(random.uniform(0, min(_LONGEST_WAIT_S, 0.01 * 2**attempt)))
                continue
            for name, told in new.items():
                self._read[name] = (told, _part(kept, name))
            await self._tidy(spec["Labels"], replaced={labels.get(_DOCUMENT + name, "") for name in new})
            return
        raise StoreError(f"{self._name}: {_TRIES} others in a row wrote the state first; try it again")

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
                f"{self._name}: this Shoal can't read what is stored as {name}: {error}; use the one that wrote it"
            ) from error
        self._read[name] = (told, value)
        return value

    async def _fetch(self, told: str) -> bytes:
        if told.startswith("z:"):
            return base64.b64decode(told[2:])
        parts = [await self._docker.config(name) for name in told.split(",")]
        return b"".join(base64.b64decode(part["Spec"]["Data"]) for part in parts)

    async def _put(self, name: str, value: Any) -> str:
        """What the label says of a document: itself, or the configs that hold it."""
        content = zlib.compress(_KINDS[name].dump_json(value, by_alias=True), 6)
        if len(content) <= _INLINE_BYTES:
            return f"z:{base64.b64encode(content).decode()}"
        named: list[str] = []
        for start in range(0, len(content), _CONFIG_BYTES):
            part = content[start : start + _CONFIG_BYTES]
            config = object_name(self._fleet, f"shoal-{name}", hashlib.sha256(part).hexdigest()[:16])
            await self._docker.create_config(config, part, fleet_labels(self._fleet, Role.STATE))
            named.append(config)
        return ",".join(named)

    async def _tidy(self, labels: Mapping[str, str], replaced: set[str]) -> None:
        """Removes the configs that were replaced, and those that somebody left behind."""
        named = {name for key, told in labels.items() if key.startswith(_DOCUMENT) for name in told.split(",")}
        old = {name for told in replaced if told and not told.startswith("z:") for name in told.split(",")}
        if not old:
            return
        for config in await self._docker.configs(fleet_labels(self._fleet, Role.STATE)):
            name = config["Spec"]["Name"]
            age_s = self._clock() - datetime.fromisoformat(config["CreatedAt"].replace("Z", "+00:00")).timestamp()
            if name not in named and (name in old or age_s > _ORPHAN_S):
                await self._docker.remove_config(config["ID"])

    # The service.

    async def _service(self) -> dict[str, Any] | None:
        try:
            return await self._docker.service(self._name)
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    async def _make(self) -> dict[str, Any]:
        """Of several at once one makes it."""
        labels = {**fleet_labels(self._fleet, Role.STATE), _SCHEMA: str(SCHEMA_VERSION)}
        spec = {
            "Name": self._name,
            "Labels": labels,
            "Mode": {"Replicated": {"Replicas": 0}},
            "TaskTemplate": {"ContainerSpec": {"Image": "shoal-state", "Labels": {FLEET: self._fleet}}},
        }
        try:
            await self._docker.create_service(spec)
        except DockerError as error:
            if error.status != 409:
                raise
        return await self._docker.service(self._name)

    def _check_schema(self, labels: Mapping[str, str]) -> None:
        found = labels.get(_SCHEMA, str(SCHEMA_VERSION))
        if not found.isdigit() or int(found) > SCHEMA_VERSION:
            raise NewerState(
                f"{self._name}: written by a newer Shoal (state version {found}, this one knows {SCHEMA_VERSION}); use "
                "that Shoal"
            )


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
