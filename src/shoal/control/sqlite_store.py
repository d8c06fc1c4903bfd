"""The store of one machine: a SQLite file that survives the power being cut (WAL, every commit synced).

One thread of its own does all the work, so that a slow disk never holds the loop up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

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
from shoal.errors import NewerState, StoreError
from shoal.spec.model import Fleet

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS fleet (
  id INTEGER PRIMARY KEY CHECK (id = 1), generation INTEGER NOT NULL, document TEXT, directory TEXT NOT NULL,
  stored_by TEXT NOT NULL, stored_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nonce (agent TEXT PRIMARY KEY, nonce TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS generation (generation INTEGER PRIMARY KEY, document BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS revision (
  agent TEXT NOT NULL, revision TEXT NOT NULL, generation INTEGER NOT NULL, document BLOB NOT NULL,
  PRIMARY KEY (agent, revision)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record (agent TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decision (id INTEGER PRIMARY KEY, agent TEXT NOT NULL, document BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS decision_agent ON decision (agent, id);
"""
_RECORD = TypeAdapter(AgentRecord)
_DECISION = TypeAdapter(Decision)
_SECRET = TypeAdapter(SecretRecord)
_GENERATION = TypeAdapter(StoredGeneration)
_REVISION = TypeAdapter(StoredRevision)
T = TypeVar("T")


@contextlib.asynccontextmanager
async def open_store(path: Path) -> AsyncGenerator[SqliteStore]:
    """Opens or makes the file (mode 0600). Raises NewerState when a newer Shoal wrote it, StoreError when it can't be
    read."""
    store = SqliteStore(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class SqliteStore:
    """See `shoal.control.store.Store`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        await self._run(lambda: None, connect=True)

    async def read_fleet(self) -> StoredFleet | None:
        row, secrets, nonces = await self._run(self._select_fleet)
        if row is None:
            return None
        try:
            fleet = Fleet.from_document(json.loads(row[1])) if row[1] is not None else None
        except ValueError as error:  # pydantic's is one too
            raise StoreError(
                f"{self._path}: another Shoal stored a fleet that this one can't read: {_brief(error)}; use that one. "
                "A controller of this one that still runs has to be ended: `shoal up` of that one then starts its own"
            ) from error
        return StoredFleet(row[0], fleet, row[2], row[3], row[4], secrets, nonces)

    def _select_fleet(self) -> tuple[Any, Mapping[str, SecretRecord], Mapping[str, str]]:
        with self._db:
            self._db.execute("BEGIN")
            row = self._db.execute("SELECT generation, document, directory, stored_by, stored_at FROM fleet").fetchone()
            return row, self._select_secrets(), self._select_nonces()

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
        document = None if fleet is None else json.dumps(fleet.to_document())

        def swap() -> None:
            with self._db:
                self._compare(expected_generation, expected_secrets)
                self._db.execute(
                    "REPLACE INTO fleet (id, generation, document, directory, stored_by, stored_at) "
                    "VALUES (1,?,?,?,?,?)",
                    (expected_generation + 1, document, directory, by, at),
                )
                if secrets is not None:
                    self._replace_secrets(secrets)
                if nonces is not None:
                    self._db.execute("DELETE FROM nonce")
                    self._db.executemany("INSERT INTO nonce (agent, nonce) VALUES (?,?)", nonces.items())
                if fleet is not None:
                    digests = {name: record.digest for name, record in self._select_secrets().items()}
                    kept = self._select_nonces()
                    self._note(StoredGeneration(expected_generation + 1, at, by, fleet, kept, digests, what))

        await self._run(swap)
        return expected_generation + 1

    def _note(self, stored: StoredGeneration) -> None:
        """Adds to the history, in the transaction that stores the fleet."""
        last = self._db.execute("SELECT document FROM generation ORDER BY generation DESC LIMIT 1").fetchone()
        before = _readable(_GENERATION, last[0]) if last is not None else None
        self._db.execute(
            "REPLACE INTO generation (generation, document) VALUES (?,?)",
            (stored.generation, _GENERATION.dump_json(stored, by_alias=True)),
        )
        self._db.execute("DELETE FROM generation WHERE generation <= ?", (stored.generation - REVISIONS_KEPT,))
        new = list(new_revisions(before, stored))
        self._db.executemany(
            "REPLACE INTO revision (agent, revision, generation, document) VALUES (?,?,?,?)",
            [(each.agent, each.revision, each.generation, _REVISION.dump_json(each, by_alias=True)) for each in new],
        )
        self._db.executemany(
            "DELETE FROM revision WHERE agent = ?1 AND generation <= (SELECT generation FROM revision WHERE agent = ?1 "
            f"ORDER BY generation DESC LIMIT 1 OFFSET {REVISIONS_KEPT})",
            [(each.agent,) for each in new],
        )
        gone = {agent for (agent,) in self._db.execute("SELECT DISTINCT agent FROM revision")} - set(
            stored.fleet.agents
        )
        self._db.executemany("DELETE FROM revision WHERE agent = ?", [(agent,) for agent in gone])

    async def read_history(self) -> History:
        def select() -> tuple[list[Any], list[Any]]:
            return (
                self._db.execute("SELECT document FROM generation ORDER BY generation DESC").fetchall(),
                self._db.execute("SELECT document FROM revision ORDER BY generation DESC").fetchall(),
            )

        generations, rows = await self._run(select)
        revisions: dict[str, tuple[StoredRevision, ...]] = {}
        for (document,) in rows:
            revision = _readable(_REVISION, document)
            if revision is not None:
                revisions[revision.agent] = (*revisions.get(revision.agent, ()), revision)
        readable = (_readable(_GENERATION, document) for (document,) in generations)
        return History(tuple(each for each in readable if each is not None), revisions)

    def _select_nonces(self) -> Mapping[str, str]:
        return dict(self._db.execute("SELECT agent, nonce FROM nonce").fetchall())

    async def read_secrets(self) -> Mapping[str, SecretRecord]:
        return await self._run(self._select_secrets)

    async def write_secrets(
        self,
        secrets: Mapping[str, SecretRecord],
        *,
        expected_generation: int,
        expected_secrets: Mapping[str, SecretRecord] | None = None,
    ) -> None:
        def swap() -> None:
            with self._db:
                self._compare(expected_generation, expected_secrets)
                self._replace_secrets(secrets)

        await self._run(swap)

    def _compare(self, expected: int, secrets: Mapping[str, SecretRecord] | None) -> None:
        """Begins a transaction that nobody else can write beside. Raises Conflict."""
        self._db.execute("BEGIN IMMEDIATE")
        found, who = self._db.execute("SELECT generation, stored_by FROM fleet").fetchone() or (0, "nobody")
        if found != expected:
            raise generation_conflict(found, who, expected)
        refuse_other_secrets(self._select_secrets(), secrets)

    def _select_secrets(self) -> Mapping[str, SecretRecord]:
        rows = self._db.execute("SELECT name, document FROM secret ORDER BY name").fetchall()
        return {name: _SECRET.validate_json(document) for name, document in rows}

    def _replace_secrets(self, secrets: Mapping[str, SecretRecord]) -> None:
        self._db.execute("DELETE FROM secret")
        rows = [(name, _SECRET.dump_json(record)) for name, record in secrets.items()]
        self._db.executemany("INSERT INTO secret (name, document) VALUES (?,?)", rows)

    async def read_records(self) -> Mapping[str, AgentRecord]:
        rows = await self._run(lambda: self._db.execute("SELECT agent, document FROM record").fetchall())
        return {agent: _RECORD.validate_json(document) for agent, document in rows}

    async def write(self, records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> None:
        kept = [(agent, _RECORD.dump_json(record)) for agent, record in records.items() if record is not None]
        forgotten = [(agent,) for agent, record in records.items() if record is None]
        added = [(decision.agent, _DECISION.dump_json(decision)) for decision in decisions]
        await self._run(lambda: self._write(kept, forgotten, added))

    def _write(
        self, kept: Sequence[tuple[str, bytes]], forgotten: Sequence[tuple[str]], added: Sequence[tuple[str, bytes]]
    ) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("REPLACE INTO record (agent, document) VALUES (?,?)", kept)
            self._db.executemany("DELETE FROM record WHERE agent = ?", forgotten)
            self._db.executemany("DELETE FROM decision WHERE agent = ?", forgotten)
            self._db.executemany("INSERT INTO decision (agent, document) VALUES (?,?)", added)
            self._db.executemany(
                "DELETE FROM decision WHERE agent = ?1 AND id <= (SELECT id FROM decision WHERE agent = ?1 "
                f"ORDER BY id DESC LIMIT 1 OFFSET {DECISIONS_KEPT})",
                sorted({(agent,) for agent, _ in added}),
            )

    async def read_decisions(self, agent: str, last: int = DECISIONS_KEPT) -> tuple[Decision, ...]:
        rows = await self._run(
            lambda: self._db.execute(
                "SELECT document FROM decision WHERE agent = ? ORDER BY id DESC LIMIT ?", (agent, last)
            ).fetchall()
        )
        return tuple(_DECISION.validate_json(document) for (document,) in rows)

    async def close(self) -> None:
        if self._connection is not None:
            await self._run(self._connection.close)
            self._connection = None
        self._thread.shutdown()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self._path}: the state is closed")
        return self._connection

    async def _run(self, work: Callable[[], T], *, connect: bool = False) -> T:
        def guarded() -> T:
            try:
                if connect:
                    self._connect()
                return work()
            except sqlite3.Error as error:
                raise _unusable(self._path, error) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def _connect(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            connection.close()
            raise _newer(self._path, version)
        connection.executescript(_SCHEMA)
        if version != SCHEMA_VERSION:  # who only reads needs no room on the disk
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._connection = connection


def _brief(error: ValueError) -> str:
    """What is wrong with a stored fleet, in a line."""
    if not isinstance(error, ValidationError):
        return str(error)
    wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
    return f"{'; '.join(wrong[:3])}{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}"


def check_file(path: Path) -> None:
    """Looks whether the state can be read, and writes nothing. Raises NewerState, StoreError."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as there:
            version: int = there.execute("PRAGMA user_version").fetchone()[0]
            found: str = there.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    if version > SCHEMA_VERSION:
        raise _newer(path, version)
    if found != "ok":
        raise StoreError(f"{path}: the state can't be used: {found}; {_damaged(path)}")


def _newer(path: Path, version: int) -> NewerState:
    return NewerState(
        f"{path}: written by a newer Shoal (state version {version}, this one knows {SCHEMA_VERSION}); use that Shoal, "
        "or move the file aside to start with what runs"
    )


def _unusable(path: Path, error: sqlite3.Error) -> StoreError:
    remedy = "expected a writable SQLite file; `shoal doctor` looks at disk space and rights"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        remedy = _damaged(path)
    elif code == sqlite3.SQLITE_FULL:
        remedy = f"nothing of this was stored, and what runs goes on; make room on the disk of {path.parent}, and again"
    return StoreError(f"{path}: the state can't be used: {error}; {remedy}")


def _damaged(path: Path) -> str:
    place = path.parent
    return (
        f"it is damaged, while what runs goes on. To go on with that, end the controller that {place}/controller.lock "
        f"names, if it is there; `mkdir {place}/damaged && mv {path}* {place}/damaged`; then `shoal up`. Pins, history "
        "and what `shoal secret set` gave are lost with it"
    )


def _readable(kind: TypeAdapter[T], document: bytes) -> T | None:
    """What an earlier Shoal noted, unless this one does not understand it: then it can't be undone to."""
    try:
        return kind.validate_json(document)
    except ValueError:
        return None
