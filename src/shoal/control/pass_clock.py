"""Wall time from pass to pass, beside the loop's own: a clock that was set, or a machine that slept, is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

SLEPT_S = 10.0  # a clock that is further on than the time we ran has been set, or the machine was suspended


@dataclass(frozen=True, slots=True)
class Instant:
    """`now` in epoch seconds; by how much the clock went on without us, and by how much it went back."""

    now: float
    slept_s: float = 0.0
    set_back_s: float = 0.0


class PassClock:
    """`wall` gives epoch seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._at = self._loop_at = 0.0

    def start(self) -> None:
        """From now on; what was before is none of ours."""
        self._at, self._loop_at = self._wall(), asyncio.get_running_loop().time()

    def read(self) -> Instant:
        """Now, and what became of the clock since it was read last."""
        before, loop_before = self._at, self._loop_at
        self.start()
        slept_s = self._at - before - (self._loop_at - loop_before)
        return Instant(self._at, slept_s if slept_s > SLEPT_S else 0.0, max(0.0, before - self._at))
