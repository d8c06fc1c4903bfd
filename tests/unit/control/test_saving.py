"""A store that takes its time: passes go on, and nothing that was decided is lost. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from shoal.control.acting import WAIT_S
from shoal.control.store import Store
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord
from shoal.errors import StoreError
from tests.simulation.virtual_time import run_virtually
from tests.unit.control.drive import Drive, driving


class Slow:
    """A store that writes only once it may; `full`: it fails then."""

    def __init__(self, store: Store) -> None:
        self._write = store.write
        self.may = asyncio.Event()
        self.asked: list[set[str]] = []
        self.full = False

    async def write(self, records: Mapping[str, AgentRecord | None], decisions: Sequence[Decision]) -> None:
        self.asked.append(set(records))
        await self.may.wait()
        if self.full:
            raise StoreError("the disk is full")
        await self._write(records, decisions)


def with_a_slow_store(monkeypatch: pytest.MonkeyPatch, story: Callable[[Drive, Slow], Awaitable[None]]) -> None:
    """Two agents serve with a replica each; from then on the store is slow, and `web` is to have two."""

    async def run() -> None:
        async with driving() as drive:
            web = {"command": "serve", "port": 80, "scale": {"min": 1, "max": 9}}
            await drive.up({"web": web, "stock": {**web, "port": 81}})
            await drive.go(5, until=lambda: drive.controller.settled)
            slow = Slow(drive.store)
            monkeypatch.setattr(drive.store, "write", slow.write)
            drive.controller.pin("web", 2)
            await drive.go(1)
            await story(drive, slow)

    run_virtually(run())


def test_what_is_decided_meanwhile_is_in_the_next_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one write at a time; agents are scaled all the same."""

    async def story(drive: Drive, slow: Slow) -> None:
        drive.controller.pin("stock", 3)
        await drive.go(3, until=lambda: len(drive.state("stock").observed.replicas) == 3)
        await drive.go(3)
        assert slow.asked == [{"web"}] and not drive.controller.settled
        slow.may.set()
        await drive.go(3, until=lambda: drive.controller.settled)
        records = await drive.store.read_records()
        assert {name: record.desired for name, record in records.items()} == {"web": 2, "stock": 3}
        assert (await drive.store.read_decisions("stock"))[0].count == 3

    with_a_slow_store(monkeypatch, story)


def test_a_pass_waits_only_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the write that it began; the next one does not."""

    async def story(drive: Drive, slow: Slow) -> None:
        slow.may.set()
        await drive.go(3, until=lambda: drive.controller.settled)
        slow.may.clear()
        took: list[float] = []
        for count in (3, 4):
            drive.controller.pin("web", count)
            began = asyncio.get_running_loop().time()
            await drive.controller.run_pass()
            took.append(asyncio.get_running_loop().time() - began)
        assert took == pytest.approx([WAIT_S, 0.0])
        slow.may.set()

    with_a_slow_store(monkeypatch, story)


def test_what_could_not_be_stored_is_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told meanwhile; no decision is lost."""

    async def story(drive: Drive, slow: Slow) -> None:
        slow.full = True
        slow.may.set()
        await drive.go(3)
        assert drive.controller.problems == {"pass": "the disk is full"}
        slow.full = False
        await drive.go(5, until=lambda: drive.controller.settled)
        assert drive.controller.problems == {} and (await drive.store.read_records())["web"].desired == 2
        assert (await drive.store.read_decisions("web"))[0].count == 2

    with_a_slow_store(monkeypatch, story)


def test_an_agent_that_comes_back_while_it_is_forgotten_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write that forgets it may end when the file has it again."""

    async def story(drive: Drive, slow: Slow) -> None:
        slow.may.set()
        await drive.go(3, until=lambda: drive.controller.settled)
        web = {"command": "serve", "port": 80, "scale": {"min": 1, "max": 9}}
        slow.may.clear()
        await drive.up({"web": web})
        await drive.go(10, until=lambda: slow.asked[-1] == {"stock"})
        await drive.up({"web": web, "stock": {**web, "port": 81}})
        await drive.go(2)
        slow.may.set()
        await drive.go(5, until=lambda: drive.controller.settled)
        assert len(drive.state("stock").observed.replicas) == 1
        assert (await drive.store.read_records())["stock"].desired == 1

    with_a_slow_store(monkeypatch, story)
