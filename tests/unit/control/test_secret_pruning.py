"""Contents of secrets that nothing names are dropped once for each generation, and no pass waits for that."""

from __future__ import annotations

import asyncio

import pytest

from shoal.control.store import History
from shoal.errors import EngineUnavailable, StoreError
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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (EngineUnavailable("no route"), "no route"),
        (ValueError("a template that is no JSON"), "ValueError: a template that is no JSON"),
    ],
)
def test_contents_that_can_not_be_dropped_are_told_and_dropped_later(error: Exception, words: str) -> None:
    """Though the fleet is not at rest any more by then; that the engine was away just then says nothing of it now."""

    async def run() -> None:
        async with driving() as drive:
            drive.prune_error = error
            await drive.up({"web": WEB})
            await drive.go(5)
            assert drive.controller.problems == {"pruning": words} and drive.kept_secrets == []
            assert not drive.controller.problems.engine_away
            drive.unhealthy.update(replica.id for replica in drive.state("web").observed.replicas)
            await drive.go(1, until=lambda: not drive.controller.settled)
            drive.prune_error = None
            await drive.go(3)
            assert drive.controller.problems == {} and drive.kept_secrets == [frozenset()]
            await drive.go(5)
            assert len(drive.kept_secrets) == 1

    run_virtually(run())


def test_what_could_not_be_dropped_is_no_concern_of_the_next_generation() -> None:
    """It may name more: what is dropped for it is decided when it is carried out."""

    async def run() -> None:
        async with driving() as drive:
            drive.prune_error = EngineUnavailable("no route")
            await drive.up({"web": WEB})
            await drive.go(5)
            assert drive.controller.problems == {"pruning": "no route"}
            drive.prune_error = None
            await drive.up({"web": {**WEB, "port": 81}})
            await drive.go(0.2)
            assert drive.controller.problems == {} and drive.kept_secrets == [] and not drive.controller.settled
            await drive.go(5)
            assert len(drive.kept_secrets) == 1

    run_virtually(run())


def test_a_server_that_is_away_while_the_history_is_read_is_no_engine_that_stays_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with driving() as drive:

            async def fail() -> History:
                raise EngineUnavailable("no route")

            await drive.up({"web": WEB})
            monkeypatch.setattr(drive.store, "read_history", fail)
            await drive.go(5)
            assert drive.controller.problems == {"history": "no route"}
            assert not drive.controller.problems.engine_away

    run_virtually(run())
