"""When an Envoy that ended is started anew, on virtual time: its process is a value."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from shoal.proxy import envoy
from shoal.proxy.envoy import EnvoyKeeper, EnvoyPlace
from shoal.proxy.limits import Limits
from tests.simulation.virtual_time import run_virtually


class Process:
    """One that ended by SIGKILL."""

    pid = 7

    def poll(self) -> int:
        return -9


def starts(patch: pytest.MonkeyPatch, directory: Path, lived_s: float, count: int) -> list[float]:
    """The times of the first so many starts of an Envoy that lives so long."""
    place = EnvoyPlace(directory, directory / "g", directory / "a", "n", 1, Limits(connections=10, heap_bytes=1 << 30))

    async def work() -> list[float]:
        loop = asyncio.get_running_loop()
        keeper = EnvoyKeeper(place)
        found: list[float] = []

        def start() -> Any:
            found.append(round(loop.time(), 3))
            return Process()

        async def nobody() -> None:
            return None

        async def ended(_: object) -> None:
            await asyncio.sleep(lived_s)

        patch.setattr(keeper, "_start", start)
        patch.setattr(keeper, "_adopt", nobody)
        patch.setattr(envoy, "_ended", ended)
        patch.setattr(envoy.time, "monotonic", loop.time)
        patch.setattr(envoy, "_how_ended", lambda _: "signal 9")
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(keeper.run())
            while len(found) < count:
                await asyncio.sleep(0.01)
            running.cancel()
        return found

    return cast("list[float]", run_virtually(work()))


def test_deaths_within_moments_wait_only_from_the_fourth_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first ones are chance; a crash loop is not followed at full speed."""
    assert starts(monkeypatch, tmp_path, 0.1, 7) == [0.0, 0.1, 0.2, 0.5, 1.1, 2.2, 4.3]


def test_who_lived_is_started_anew_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert starts(monkeypatch, tmp_path, 2.0, 6) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
