"""The first look at a fleet's objects, of which there may be many, in a cluster that may be slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast

import pytest

from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.inventory import Inventory
from shoal.errors import EngineUnavailable
from tests.fake_kubernetes import NO_LABELS, FakeKubernetes
from tests.simulation.virtual_time import run_virtually


class Slow(FakeKubernetes):
    """Pods come in so many pages, one each 20 s, and then nothing more."""

    def __init__(self, pages: int, *, ends: bool) -> None:
        super().__init__()
        self._pages, self._ends = pages, ends

    async def pages(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> AsyncGenerator[tuple[list[dict[str, Any]], str], None]:
        if kind != POD:
            yield await self.list(kind, labels, fields=fields)
            return
        for _ in range(self._pages):
            await asyncio.sleep(20.0)
            yield [], "1"
        if not self._ends:
            await asyncio.Event().wait()

    async def watch(
        self, kind: Kind, labels: Mapping[str, str], version: str, *, fields: str = ""
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        await asyncio.Event().wait()
        yield "", {}


async def look(kubernetes: FakeKubernetes) -> float | str:
    """When all was told, or why it was not."""
    inventory = Inventory(cast("Any", kubernetes), "f", asyncio.Event())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(inventory.run())
        try:
            await inventory.ready()
        except EngineUnavailable as error:
            return str(error)
        finally:
            running.cancel()
    return asyncio.get_running_loop().time()


def test_a_slow_cluster_is_waited_for_as_long_as_it_tells() -> None:
    assert run_virtually(look(Slow(5, ends=True))) == pytest.approx(100.0)


def test_a_silent_one_is_not() -> None:
    assert run_virtually(look(Slow(2, ends=False))) == "the cluster tells nothing for 30s"
