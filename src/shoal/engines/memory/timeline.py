"""What will happen, in order, on a clock that somebody else moves."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timeline:
    """Steps by the instant at which they are due. Time passes only in `advance`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._instant: float | None = None

    @property
    def now(self) -> float:
        """The clock, or the instant of the step that is being taken, so that what follows from it is on time."""
        return self._clock() if self._instant is None else self._instant

    @property
    def next_due(self) -> float | None:
        """When the next step is due; `None`: nothing will happen by itself."""
        return self._heap[0][0] if self._heap else None

    def after(self, delay_s: float, step: Callable[[], None]) -> None:
        """Takes the step after the delay; at once if there is none."""
        if delay_s <= 0:
            step()
            return
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._sequence, step))

    def advance(self) -> bool:
        """Takes every step that is due by the clock, each at its own instant; true if there was one."""
        end = self._clock()
        if not self._heap or self._heap[0][0] > end:
            return False
        try:
            while self._heap and self._heap[0][0] <= end:
                self._instant, _, step = heapq.heappop(self._heap)
                step()
        finally:
            self._instant = None
        return True
