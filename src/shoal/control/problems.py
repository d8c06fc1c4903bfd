"""What goes wrong now, each place with its words, for status; that it began and that it is over are events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from shoal.control.agent_state import Event
from shoal.errors import EngineUnavailable, ShoalError

log = logging.getLogger(__name__)


class Problems(Mapping[str, str]):
    """By place. `clock` gives epoch seconds, `note` takes the events."""

    def __init__(self, clock: Callable[[], float], note: Callable[[Event], None]) -> None:
        self._clock, self._note = clock, note
        self._now: dict[str, str] = {}
        self._away: set[str] = set()

    def __getitem__(self, where: str) -> str:
        return self._now[where]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)

    @property
    def engine_away(self) -> bool:
        """Whether the engine can't be reached now: so nothing is an agent's failure."""
        return bool(self._away)

    def failed(self, where: str, error: Exception) -> None:
        """Notes an error; one that is not Shoal's own is a fault of Shoal's, the traceback goes to the log, once."""
        if isinstance(error, EngineUnavailable):
            self._away.add(where)
        else:
            self._away.discard(where)
        words = str(error) if isinstance(error, ShoalError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, ShoalError) and self._now.get(where) != words:
            log.error("%s: an unexpected error", where, exc_info=error)
        self.say(where, words)

    def say(self, where: str, message: str | None) -> None:
        """Notes what goes wrong there now, once; `None`: it is over, or never was."""
        before = self._now.get(where)
        if message is None:
            self._now.pop(where, None)
            self._away.discard(where)
        else:
            self._now[where] = message
        if message is not None and message != before:
            self._note(Event(self._clock(), None, "problem", message))
        elif message is None and before is not None:
            self._note(Event(self._clock(), None, "solved", f"no longer: {before}"))
