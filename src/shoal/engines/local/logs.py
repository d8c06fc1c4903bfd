"""What replicas wrote: kept small while they write, read across rotations, timed without standing in between.

A replica writes to its files itself (O_APPEND), so nobody stamps its lines. The engine notes instead, once a
`housekeeping_s`, how far each file has grown: a line's time is the first such note after it, at most that much too
late, and `None` before the first note or where no controller ran. Rotation copies the file and empties it: with
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from shoal.engines.local.layout import make_private, write_all
from shoal.engines.protocol import LogLine

_LONGEST_LINE = 64 * 1024
_CHASE_BYTES = 1024 * 1024
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
        if self.size != self._marked:
            self._mark(now)
        if self._marked > limit_bytes:
            self._rotate(kept)

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
                    _numbered(path, number).replace(_numbered(path, number + 1))
        with contextlib.suppress(FileNotFoundError):
            self.marks.replace(_numbered(self.marks, 1))
        _move_content(self.path, _numbered(self.path, 1))
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


def read_logs(
    agent: str,
    directories: Iterable[Path],
    since: float | None,
    tail: int | None,
    ends: Mapping[Path, int] | None = None,
) -> Iterator[LogLine]:
    """Lines of all replicas and streams, oldest first as far as times are known. Nothing may be rotated meanwhile.

    `since`: epoch seconds; lines of unknown time are given, as they may be newer. `tail`: only the last so many, over
    all. `ends`: where to stop in files that are followed from there.
    """
    timed: list[tuple[float, LogLine]] = []
    for directory in directories:
        for stream in STREAMS:
            end = math.inf if ends is None else ends.get(directory / f"{stream}.log", 0)
            timed.extend(_in_time(_read_stream(agent, directory, stream, since, tail, end)))
    timed.sort(key=lambda pair: pair[0])
    for _, line in timed if tail is None else timed[max(0, len(timed) - tail) :]:
        yield line


def _in_time(lines: Sequence[LogLine]) -> Iterator[tuple[float, LogLine]]:
    """Each line of one stream with what it sorts by: a line of unknown time stays where it stood in its stream, and
    what came after the last note is newer than all that is noted."""
    noted = sum(1 for line in lines if line.at is not None)
    before = 0.0 if noted else math.inf
    for line in lines:
        if line.at is not None:
            before, noted = line.at, noted - 1
        yield (before if line.at is not None or noted else math.inf), line


def _read_stream(
    agent: str, directory: Path, stream: str, since: float | None, tail: int | None, end: float
) -> list[LogLine]:
    """One stream from its oldest copy on, or, for a tail, from the newest backwards until there is enough."""
    segments: list[deque[LogLine]] = []
    found = 0
    current = directory / f"{stream}.log"
    number = 0
    while (path := _numbered(current, number)).exists():
        lines: deque[LogLine] = deque(maxlen=tail)
        lines.extend(_read_segment(agent, directory, stream, path, number, since, math.inf if number else end))
        segments.append(lines)
        found += len(lines)
        number += 1
        if tail is not None and found >= tail:
            break
    return [line for lines in reversed(segments) for line in lines]


def _read_segment(
    agent: str, directory: Path, stream: str, path: Path, number: int, since: float | None, end: float
) -> Iterator[LogLine]:
    marks = _read_marks(_numbered(directory / f"{stream}.marks", number))
    replica = unquote(directory.name)
    offset = 0
    with path.open("rb") as source:
        for raw in source:
            offset += len(raw)
            if offset > end:
                return
            while marks and marks[0][0] < offset:
                marks.popleft()
            at = (marks[0][1] or None) if marks else None
            if at is None or since is None or at >= since:
                yield LogLine(replica, agent, raw.decode(errors="replace").rstrip("\r\n"), stream, at)


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


def _numbered(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


class Follower:
    """Where one reader is in one stream that may grow and be rotated meanwhile."""

    def __init__(self, agent: str, directory: Path, stream: str, *, from_end: bool) -> None:
        self._agent = agent
        self._replica = unquote(directory.name)
        self._stream = stream
        self.path = directory / f"{stream}.log"
        self.offset = _last_line_end(self.path) if from_end else 0
        self._partial = b""

    def read(self, now: float) -> Iterator[LogLine]:
        """The whole lines that came since the last call, with `now` as their time."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        content = b""
        if size < self.offset:
            content = _read_from(_numbered(self.path, 1), self.offset)
            self.offset = 0
        if size > self.offset:
            content += _read_from(self.path, self.offset, size)
            self.offset = size
        *lines, self._partial = (self._partial + content).split(b"\n")
        for line in lines:
            yield LogLine(self._replica, self._agent, line.decode(errors="replace").rstrip("\r"), self._stream, now)


def _last_line_end(path: Path) -> int:
    """Where the last whole line ends."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    begin = max(0, size - _LONGEST_LINE)
    last = _read_from(path, begin, size).rfind(b"\n")
    return begin + last + 1 if last >= 0 else begin


def _read_from(path: Path, offset: int, until: int | None = None) -> bytes:
    try:
        with path.open("rb") as source:
            source.seek(offset)
            return source.read() if until is None else source.read(until - offset)
    except FileNotFoundError:
        return b""
