"""What replicas wrote: kept small while they write, read across rotations, timed without standing in between.

A replica writes to its files itself (O_APPEND), so nobody stamps its lines. The engine notes instead how far each file
has grown, and when it was last written: once a `housekeeping_s`, more often while it is lively, and before it is read.
A line's time is the first such note after it, at most that much too late; none is known for what was written where no
controller ran. Rotation copies the file and empties it: with
O_APPEND the writer goes on at the new end; what is written in the microseconds between the two is lost. A writer that
is faster than the copy is not chased: what it adds beyond `_CHASE_BYTES` meanwhile is lost too.

    logs/<replica>/stdout.log, stdout.log.1 … .3    what it wrote, .1 the newest copy
    logs/<replica>/stdout.marks, stdout.marks.1 …   lines of `<bytes> <epoch seconds>`, 0 for an unknown time
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from pathlib import Path

from shoal.engines.local.layout import make_private, write_all

_CHASE_BYTES = 1024 * 1024
_LIVELY_S = 2.0
STREAMS = ("stdout", "stderr")


class LogFile:
    """One stream of one replica, while it is written."""

    def __init__(self, directory: Path, stream: str) -> None:
        self.path = directory / f"{stream}.log"
        self.marks = directory / f"{stream}.marks"
        self._marked = 0
        self._grew_at = -math.inf
        for size, _ in read_marks(self.marks):
            self._marked = size
        if self.size > self._marked:  # written while no controller looked: of unknown time
            with contextlib.suppress(OSError):  # a full disk: then no time is known, no more
                self._mark(0.0)

    @property
    def size(self) -> int:
        """Bytes in the current file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def look(self, now: float, limit_bytes: float, kept: int) -> None:
        """Notes growth, and rotates what has become too large."""
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return
        if state.st_size != self._marked:
            self._mark(min(now, state.st_mtime))
            self._grew_at = now
        if self._marked > limit_bytes:
            self._rotate(kept)

    def is_lively(self, now: float) -> bool:
        """Whether it has grown a moment ago, so that it is worth to look soon again."""
        return now - self._grew_at < _LIVELY_S

    def _mark(self, at: float) -> None:
        self._marked = self.size
        handle = os.open(self.marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            write_all(handle, f"{self._marked} {at:.3f}\n".encode())
        finally:
            os.close(handle)

    def _rotate(self, kept: int) -> None:
        for path in (self.path, self.marks):
            for number in range(kept - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    numbered(path, number).replace(numbered(path, number + 1))
        with contextlib.suppress(FileNotFoundError):
            self.marks.replace(numbered(self.marks, 1))
        _move_content(self.path, numbered(self.path, 1))
        self._marked = 0


class LogPair:
    """Both streams of one replica. Making it makes the directory."""

    def __init__(self, directory: Path) -> None:
        make_private(directory)
        self.stdout = LogFile(directory, "stdout")
        self.stderr = LogFile(directory, "stderr")

    def look(self, now: float, limit_bytes: float, kept: int) -> None:
        """See `LogFile.look`. Errors of the disk are no reason to stop: the next look tries again."""
        for file in (self.stdout, self.stderr):
            with contextlib.suppress(OSError):
                file.look(now, limit_bytes, kept)

    def look_if_lively(self, now: float) -> None:
        """Notes the growth of what has grown a moment ago, so that lines of both streams stand in their order."""
        for file in (self.stdout, self.stderr):
            if file.is_lively(now):
                with contextlib.suppress(OSError):
                    file.look(now, math.inf, 0)

    @property
    def largest(self) -> int:
        """Bytes in the larger one."""
        return max(self.stdout.size, self.stderr.size)

    def last_lines(self, stdout_from: int, stderr_from: int, number: int = 10) -> tuple[str, ...]:
        """The last lines of stderr since the offset, or of stdout where stderr has none: what a person wants to see
        first of a replica that died."""
        for file, offset in ((self.stderr, stderr_from), (self.stdout, stdout_from)):
            lines = [line for line in _tail_of(file.path, offset) if line.strip()]
            if lines:
                return tuple(line[:1000] for line in lines[-number:])
        return ()


def read_marks(path: Path) -> deque[tuple[int, float]]:
    marks: deque[tuple[int, float]] = deque()
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            size, _, at = line.partition(" ")
            with contextlib.suppress(ValueError):
                marks.append((int(size), float(at)))
    return marks


def _tail_of(path: Path, offset: int, most_bytes: int = 16 * 1024) -> list[str]:
    """The last lines after the offset; after a rotation, what there is."""
    try:
        with path.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(offset if offset <= size else 0, size - most_bytes))
            return source.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _move_content(path: Path, copy: Path) -> None:
    """Copies to the very end and empties: nothing stands between the last read, which found nothing, and that; save
    that a writer too fast to catch up with is left behind."""
    source = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        left = os.fstat(source).st_size + _CHASE_BYTES
        try:
            while left > 0 and (content := os.read(source, min(left, 1024 * 1024))):
                write_all(target, content)
                left -= len(content)
            os.ftruncate(source, 0)
        finally:
            os.close(target)
    finally:
        os.close(source)


def numbered(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.{number}")
