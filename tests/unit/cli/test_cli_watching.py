"""A status that is followed from one controller to the next, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import pytest

from shoal.api.views import StatusView
from shoal.cli.watching import watch
from shoal.errors import ControllerUnavailable
from tests.simulation.virtual_time import run_virtually
from tests.unit.cli.fake_controller import STATUS

SILENCE = -1


class Controllers:
    """One after the other; each shows the generations that it is given, then is gone. Nobody answers at a `None`."""

    fleet = "warehouse"

    def __init__(self, *lives: tuple[int, ...] | None, shared: bool) -> None:
        self._lives = list(lives)
        self.shared = shared

    def client(self) -> Controllers:
        return self

    async def watch(self) -> AsyncGenerator[StatusView, None]:
        life = self._lives.pop(0) if self._lives else None
        if life is None:
            raise ControllerUnavailable("nobody")
        for generation in life:
            if generation == SILENCE:
                await asyncio.sleep(3600.0)
            yield replace(STATUS, generation=generation)


def followed(place: Controllers) -> tuple[list[int], float]:
    """The generations that are seen, and how long that took."""

    async def follow() -> tuple[list[int], float]:
        seen = [view.generation async for view in watch(cast("Any", place))]
        return seen, asyncio.get_running_loop().time()

    return run_virtually(follow())


def test_on_one_machine_it_ends_with_the_controller() -> None:
    """Somebody would have to start another."""
    assert followed(Controllers((1, 2), (3,), shared=False))[0] == [1, 2]
    with pytest.raises(ControllerUnavailable):
        followed(Controllers(None, (1,), shared=False))


def test_elsewhere_it_goes_on_with_the_next_one() -> None:
    """Which may take some seconds to come; after half a minute there is none."""
    seen, took_s = followed(Controllers((1, 2), None, None, (2, 3), shared=True))
    assert seen == [1, 2, 2, 3] and 30.0 < took_s < 35.0


def test_who_was_never_there_is_not_waited_for() -> None:
    """Nothing says that there will be one."""
    with pytest.raises(ControllerUnavailable):
        followed(Controllers(None, (1,), shared=True))


def test_one_whose_machine_is_gone_is_not_waited_for_either() -> None:
    """Nothing hangs up then."""
    seen, took_s = followed(Controllers((1, SILENCE), (2,), shared=True))
    assert seen == [1, 2] and took_s < 60.0
