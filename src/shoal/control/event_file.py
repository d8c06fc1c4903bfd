"""The last events beside the store, a JSON object a line, so that what came before a crash can be read after it.

What a kill leaves half written is skipped. A disk that is full costs events, never the loop.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from shoal.control.agent_state import Event

EVENTS_FILE = "events.jsonl"
EVENTS_KEPT = 2000
FILE_BYTES = 512 * 1024  # some 3,000 events; the file before is kept beside it


class EventHistory(deque[Event]):
    """The last events, the oldest first."""

    def __init__(self, known: Iterable[Event] = ()) -> None:
        super().__init__(known, EVENTS_KEPT)


class EventFile(EventHistory):
    """The last events, and those of earlier controllers: each is in the file once it is here."""

    def __init__(self, path: Path) -> None:
        super().__init__(read_events(path))
        self._path = path

    def append(self, event: Event) -> None:
        self.extend((event,))

    def extend(self, events: Iterable[Event]) -> None:
        added = tuple(events)
        super().extend(added)
        if added:
            with contextlib.suppress(OSError):
                self._write("".join(f"{json.dumps(asdict(event))}\n" for event in added).encode())

    def _write(self, lines: bytes) -> None:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            # What a kill cut off, or a full disk, must not take the next line with it.
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, b"\n" + lines if torn else lines)
        finally:
            os.close(handle)
        if size > FILE_BYTES:
            self._path.replace(_before(self._path))


def read_events(path: Path) -> Iterator[Event]:
    """The last events in the file and the one before it, the oldest first."""
    for each in (_before(path), path):
        with contextlib.suppress(OSError):
            yield from (event for line in each.read_bytes().splitlines() if (event := _event(line)) is not None)


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _event(line: bytes) -> Event | None:
    try:
        return Event(**json.loads(line))
    except (ValueError, TypeError):
        return None
