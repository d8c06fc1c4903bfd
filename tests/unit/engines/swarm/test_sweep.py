"""Volumes go once their containers are gone, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from shoal.engines.swarm.node.sweep import sweep
from shoal.errors import EngineError
from tests.simulation.virtual_time import run_virtually


class Node:
    """Its volumes, by when (in the loop's time) the last container lets go of each."""

    def __init__(self, **volumes: float) -> None:
        self.kept = volumes

    async def volumes(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        assert labels == {"shoal.fleet": "shop"}
        return [{"Name": name} for name in self.kept]

    async def remove_volume(self, name: str) -> None:
        if asyncio.get_running_loop().time() < self.kept[name]:
            raise EngineError("volume is in use")
        del self.kept[name]


def swept(node: Node) -> tuple[list[str], float]:
    async def work() -> tuple[list[str], float]:
        return await sweep(cast("Any", node), "shop"), asyncio.get_running_loop().time()

    return run_virtually(work())


def test_what_is_in_use_is_waited_for() -> None:
    """Swarm removes containers a moment after their end."""
    node = Node(a=0.0, b=3.0)
    kept, at_s = swept(node)
    assert (kept, node.kept) == ([], {}) and 3.0 <= at_s < 4.0


def test_what_stays_in_use_is_named() -> None:
    """The others are gone all the same."""
    node = Node(a=0.0, b=float("inf"))
    kept, at_s = swept(node)
    assert kept == ["b: volume is in use"] and node.kept.keys() == {"b"} and at_s >= 30.0
