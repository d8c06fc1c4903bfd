"""Contents of secrets that nothing names are dropped once for each generation, and no pass waits for that."""

from __future__ import annotations

import asyncio

import pytest

from shoal.control.store import History
from shoal.errors import StoreError
from tests.simulation.virtual_time import run_virtually
from tests.unit.control.drive import driving

WEB = {"command": "serve", "port": 80}


def test_once_for_each_generation() -> None:
    """When it is carried out, not before."""

    async def run() -> None:
        async with driving() as drive:
            await drive.up({"web": WEB})
            await drive.go(0.2)
            assert not drive.controller.settled and drive.kept_secrets == []
            await drive.go(5, until=lambda: drive.controller.settled)
            await drive.go(5)
            assert drive.kept_secrets == [frozenset()]
            await drive.up({"web": {**WEB, "port": 81}})
            await drive.go(5)
            assert len(drive.kept_secrets) == 2

    run_virtually(run())


def test_passes_go_on_while_the_history_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with driving() as drive:
            may, read = asyncio.Event(), drive.store.read_history
            asked = 0

            async def read_slowly() -> History:
                nonlocal asked
                asked += 1
                await may.wait()
                return await read()

            await drive.up({"web": WEB})
            with monkeypatch.context() as patch:
                patch.setattr(drive.store, "read_history", read_slowly)
                await drive.go(5, until=lambda: drive.controller.settled)
                drive.controller.pin("web", 3)
                await drive.go(5, until=lambda: len(drive.state("web").observed.replicas) == 3)
                assert asked == 1 and drive.kept_secrets == []
                may.set()
                await drive.go(1)
            assert drive.kept_secrets == [frozenset()]

    run_virtually(run())


def test_a_history_that_cannot_be_read_is_told_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with driving() as drive:

            async def fail() -> History:
                raise StoreError("the disk is gone")

            await drive.up({"web": WEB})
            with monkeypatch.context() as patch:
                patch.setattr(drive.store, "read_history", fail)
                await drive.go(5)
                assert drive.controller.problems == {"history": "the disk is gone"} and drive.kept_secrets == []
            await drive.go(5)
            assert drive.controller.problems == {} and drive.kept_secrets == [frozenset()]

    run_virtually(run())
