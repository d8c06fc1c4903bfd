"""An event loop whose time passes only by waiting: an hour of timers takes as long as their callbacks do.

Nothing but timers and callbacks runs on it, so equal callbacks run in equal order, whatever the machine does.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

STILL = 100_000  # turns of the loop at one instant


class _NoWaiting(selectors.SelectSelector):
    """Instead of waiting it moves the clock on. File descriptors (the loop's own pipe) are never looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._still = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is due: a deadlock")
        self._still = 0 if timeout > 0 else self._still + 1
        if self._still > STILL:
            self._still = 0  # for the cleanup
            raise RuntimeError("time stands still: somebody is due again and again")
        self.now += max(0.0, timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0."""

    def __init__(self) -> None:
        self._virtual = _NoWaiting()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
