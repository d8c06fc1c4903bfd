"""The contract of every store on each of them, and what is the file's alone."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shoal.control.document_store import DocumentStore
from shoal.control.kubernetes_keeper import KubernetesKeeper
from shoal.control.memory_store import MemoryStore
from shoal.control.sqlite_store import SqliteStore, check_file, open_store
from shoal.control.store import Store
from shoal.control.swarm_keeper import SwarmKeeper
from shoal.errors import NewerState, StoreError
from tests.fake_docker import FakeDocker
from tests.fake_kubernetes import FakeKubernetes
from tests.store_contract import StoreContract, put, put_version, versions


class TestStores(StoreContract):
    """On each of them."""

    @pytest.fixture(params=["memory", "sqlite", "swarm", "kubernetes"])
    async def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
        if request.param == "memory":
            yield MemoryStore()
            return
        if request.param == "swarm":
            yield DocumentStore(SwarmKeeper(FakeDocker(), "f"))
            return
        if request.param == "kubernetes":
            yield DocumentStore(KubernetesKeeper(FakeKubernetes(), "f"))
            return
        async with open_store(tmp_path / "state.db") as opened:
            yield opened


async def test_sqlite_survives_its_process(tmp_path: Path) -> None:
    """What was written is there for the next one who opens the file, which only its owner can read."""
    path = tmp_path / "deep" / "state.db"
    async with open_store(path) as store:
        await put(store)
    async with open_store(path) as store:
        assert (await store.read_fleet()) is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_state_of_a_newer_shoal_is_refused(tmp_path: Path) -> None:
    """A file of a later schema is left alone."""
    path = tmp_path / "state.db"
    async with open_store(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    store = SqliteStore(path)
    with pytest.raises(NewerState, match="99"):
        await store.open()
    await store.close()


async def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    """A corrupt state is an error of ours that names the file."""
    path = tmp_path / "state.db"
    path.write_bytes(b"nonsense" * 1000)
    store = SqliteStore(path)
    with pytest.raises(
        StoreError, match=r"state\.db: the state can't be used: .*; it is damaged, while what runs goes"
    ):
        await store.open()
    await store.close()


async def test_a_fleet_that_another_shoal_stored_is_told_in_a_line(tmp_path: Path) -> None:
    """By the keys that this one does not know."""
    path = tmp_path / "state.db"
    async with open_store(path) as store:
        await put_version(store, 1, versions(a="one"))
    with contextlib.closing(sqlite3.connect(path)) as newer:
        changed = """UPDATE fleet SET document = replace(document, '"command"', '"wings": 2, "command"')"""
        newer.execute(changed)
        newer.commit()
    async with open_store(path) as store:
        with pytest.raises(StoreError) as caught:
            await store.read_fleet()
    said = "another Shoal stored a fleet that this one can't read: agents.a.wings: Extra inputs are not permitted; use"
    assert said in str(caught.value) and "https" not in str(caught.value)


async def test_a_full_disk_is_told_and_reading_needs_no_room(tmp_path: Path) -> None:
    """What could not be stored was not, in part or in whole."""
    path, log = tmp_path / "state.db", tmp_path / "state.db-wal"
    async with open_store(path) as store:
        await put_version(store, 1, versions(a="one"))
        before = log.stat().st_size
        async with open_store(path) as reader:
            assert await reader.read_fleet() is not None
        assert log.stat().st_size == before
        store._db.execute("PRAGMA max_page_count = 1")  # SQLite takes what there is, and no page more
        with pytest.raises(StoreError, match="is full; nothing of this was stored, and what runs goes on; make room"):
            await put_version(store, 2, versions(**{f"a{number}": "x" * 1000 for number in range(100)}))
        found = await store.read_fleet()
        assert found is not None and found.generation == 1
        assert len((await store.read_history()).generations) == 1


def test_a_look_at_the_state_writes_nothing(tmp_path: Path) -> None:
    """Whole, damaged or newer."""
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.executescript(
            "CREATE TABLE t (a TEXT); INSERT INTO t VALUES (hex(zeroblob(9999))); PRAGMA user_version = 1"
        )
    check_file(path)
    whole = path.read_bytes()
    half = whole[: len(whole) // 2]
    for content, error in ((half, "it is damaged"), (b"no" * 999, "it is damaged")):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=error):
            check_file(path)
        assert path.read_bytes() == content
    path.write_bytes(whole)
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA user_version = 99")
    with pytest.raises(NewerState, match="99"):
        check_file(path)
