"""Who watches a large fleet takes a tenth of his time for it, however often he is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace

import pytest

from shoal.api import client as module
from shoal.api.client import PAUSE_MAX_S, Client

TOLD_EVERY_S = 0.25


async def watched(cost_s: float, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the status was taken up, told for five seconds, if that takes the process so long each time."""
    now = 0.0
    taken: list[float] = []

    async def lines(self: Client, target: str) -> AsyncGenerator[bytes, None]:
        nonlocal now
        while now < 5.0:
            yield b"{}"
            now = max(now, (now // TOLD_EVERY_S + 1) * TOLD_EVERY_S)

    def decode(view: object, value: object) -> object:
        nonlocal now
        taken.append(now)
        now += cost_s
        return view

    monkeypatch.setattr(Client, "_lines", lines)
    monkeypatch.setattr(module, "decode", decode)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now, process_time=lambda: now))
    async for _ in Client(Path("/nowhere")).watch():
        pass
    return taken


async def test_of_a_small_fleet_each_line_is_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await watched(0.04, monkeypatch) == [TOLD_EVERY_S * number for number in range(20)]


async def test_of_a_large_one_the_first_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as long as it took."""
    assert await watched(0.1, monkeypatch) == [0.0, 1.25, 2.5, 3.75, 5.0]  # and the last of all


async def test_nobody_pauses_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = await watched(1.0, monkeypatch)
    assert second - first - 1.0 == pytest.approx(PAUSE_MAX_S)
