"""What replicas wrote: kept small while they write, read across rotations, timed without standing in between.

A replica writes to its files itself (O_APPEND), so nobody stamps its lines. The engine notes instead, once a
`housekeeping_s`, how far each file has grown: a line's time is the first such note after it, at most that much too
late, and `None` before the first note or where no controller ran. Rotation copies the file and empties it: with
O_APPEND the writer goes on at the new end; what is written in the microseconds between the two is lost.

    logs/<replica>/stdout.log, stdout.log.1 … .3    what it wrote, .1 the newest copy
    logs/<replica>/stdout.marks, stdout.marks.1 …   lines of `<bytes> <epoch seconds>`, 0 for an unknown time
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from shoal.engines.local.layout import make_private
from shoal.engines.protocol import LogLine

STREAMS = ("stdout", "stderr")


class LogFile:
    """One stream of one replica, while it is written."""

    def __init__(self, directory: Path, stream: str) -> None:
        self.path = directory / f"{stream}.log"
        self.marks = directory / f"{stream}.marks"
        self._marked = 0
        for size, _ in _read_marks(self.marks):
            self._marked = size
        if self.size > self._marked:  # written while no controller looked: of unknown time
            self._mark(0.0)

    @property
    def size(self) -> int:
        """Bytes in the current file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def look(self, now: float, limit_bytes: int, kept: int) -> None:
        """Notes growth, and rotates what has become too large."""
        if self.size != self._marked:
            self._mark(now)
        if self._marked > limit_bytes:
            self._rotate(kept)

    def _mark(self, at: float) -> None:
        self._marked = self.size
        handle = os.open(self.marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, f"{self._marked} {at:.3f}\n".encode())
        finally:
            os.close(handle)

    def _rotate(self, kept: int) -> None:
        for path in (self.path, self.marks):
            for number in range(kept - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    _numbered(path, number).replace(_numbered(path, number + 1))
        with contextlib.suppress(FileNotFoundError):
            self.marks.replace(_numbered(self.marks, 1))
        with self.path.open("r+b") as source, _numbered(self.path, 1).open("wb") as copy:
            Path(copy.name).chmod(0o600)
            shutil.copyfileobj(source, copy, 1024 * 1024)
            source.truncate(0)
        self._marked = 0


class LogPair:
    """Both streams of one replica. Making it makes the directory."""

    def __init__(self, directory: Path) -> None:
        make_private(directory)
        self.stdout = LogFile(directory, "stdout")
        self.stderr = LogFile(directory, "stderr")

    def look(self, now: float, limit_bytes: int, kept: int) -> None:
        """See `LogFile.look`. Errors of the disk are no reason to stop: the next look tries again."""
        for file in (self.stdout, self.stderr):
            with contextlib.suppress(OSError):
                file.look(now, limit_bytes, kept)

    def last_lines(self, stdout_from: int, stderr_from: int, number: int = 10) -> tuple[str, ...]:
        """The last lines of stderr since the offset, or of stdout where stderr has none: what a person wants to see
        first of a replica that died."""
        for file, offset in ((self.stderr, stderr_from), (self.stdout, stdout_from)):
            lines = [line for line in _tail_of(file.path, offset) if line.strip()]
            if lines:
                return tuple(line[:1000] for line in lines[-number:])
        return ()


@dataclass(frozen=True, slots=True)
class _Timed:
    """A line and what it sorts by among those of other files."""

    at: float
    line: LogLine


def read_logs(agent: str, directories: Iterable[Path], since: float | None, tail: int | None) -> Iterator[LogLine]:
    """Lines of all replicas and streams, oldest first as far as times are known. `since`: epoch seconds; lines of
    unknown time are given, as they may be newer. `tail`: only the last so many, over all."""
    streams = [(directory, stream) for directory in directories for stream in STREAMS]
    lists = (_read_stream(agent, directory, stream, since, tail) for directory, stream in streams)
    merged = sorted((timed for lines in lists for timed in lines), key=lambda timed: timed.at)
    for timed in merged if tail is None else merged[max(0, len(merged) - tail) :]:
        yield timed.line


def _read_stream(agent: str, directory: Path, stream: str, since: float | None, tail: int | None) -> list[_Timed]:
    """One stream from its oldest copy on, or, for a tail, from the newest backwards until there is enough."""
    segments: list[deque[_Timed]] = []
    found = 0
    current = directory / f"{stream}.log"
    number = 0
    while (path := _numbered(current, number)).exists():
        lines: deque[_Timed] = deque(maxlen=tail)
        lines.extend(_read_segment(agent, directory, stream, path, number, since))
        segments.append(lines)
        found += len(lines)
        number += 1
        if tail is not None and found >= tail:
            break
    return [timed for lines in reversed(segments) for timed in lines]


def _read_segment(
    agent: str, directory: Path, stream: str, path: Path, number: int, since: float | None
) -> Iterator[_Timed]:
    marks = _read_marks(_numbered(directory / f"{stream}.marks", number))
    replica = unquote(directory.name)
    offset = 0
    last = 0.0
    with path.open("rb") as source:
        for raw in source:
            offset += len(raw)
            while marks and marks[0][0] < offset:
                last = marks.popleft()[1] or last
            at = (marks[0][1] or None) if marks else None
            if at is None or since is None or at >= since:
                text = raw.decode(errors="replace").rstrip("\r\n")
                # What has no time yet was written after the last note.
                yield _Timed(last if at is None else at, LogLine(replica, agent, text, stream, at))


def _read_marks(path: Path) -> deque[tuple[int, float]]:
    marks: deque[tuple[int, float]] = deque()
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="ascii").splitlines():
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


def _numbered(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


class Follower:
    """Where one reader is in one stream that may grow and be rotated meanwhile."""

    def __init__(self, agent: str, directory: Path, stream: str, *, from_end: bool) -> None:
        self._agent = agent
        self._replica = unquote(directory.name)
        self._stream = stream
        self._path = directory / f"{stream}.log"
        self._offset = self._path.stat().st_size if from_end and self._path.exists() else 0
        self._partial = b""

    def read(self, now: float) -> Iterator[LogLine]:
        """The whole lines that came since the last call, with `now` as their time."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        content = b""
        if size < self._offset:
            content = _read_from(_numbered(self._path, 1), self._offset)
            self._offset = 0
        if size > self._offset:
            content += _read_from(self._path, self._offset, size)
            self._offset = size
        *lines, self._partial = (self._partial + content).split(b"\n")
        for line in lines:
            yield LogLine(self._replica, self._agent, line.decode(errors="replace").rstrip("\r"), self._stream, now)


def _read_from(path: Path, offset: int, until: int | None = None) -> bytes:
    try:
        with path.open("rb") as source:
            source.seek(offset)
            return source.read() if until is None else source.read(until - offset)
    except FileNotFoundError:
        return b""
