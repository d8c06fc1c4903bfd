"""What replicas wrote, read across rotations: streams, replicas and agents together, by time as far as it is known.

A line's time is the first note after it (see `shoal.engines.local.logs`). Where none is known, the line stands beside
its neighbours of the same file; what came after the last note stands where the file was last written.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
from urllib.parse import unquote

from shoal.engines.local.logs import STREAMS, numbered, read_marks
from shoal.engines.protocol import LogLine

_LONGEST_LINE = 64 * 1024
_Placed = tuple[float, LogLine]  # epoch seconds by which it sorts


def read_logs(
    directories: Mapping[str, Sequence[Path]],
    since: float | None,
    tail: int | None,
    ends: Mapping[Path, int] | None = None,
) -> Iterator[LogLine]:
    """Lines of all replicas of several agents, given by their directories, the oldest first as far as times are known.
    Nothing may be rotated meanwhile.

    `since`: epoch seconds; lines of unknown time are given, as they may be newer. `tail`: only the last so many of each
    replica. `ends`: where to stop in files that are followed from there.
    """
    replicas = [
        _read_replica(agent, directory, since, tail, ends)
        for agent, paths in directories.items()
        for directory in paths
    ]
    for _, line in merge(*replicas, key=_when):
        yield line


def _read_replica(
    agent: str, directory: Path, since: float | None, tail: int | None, ends: Mapping[Path, int] | None
) -> list[_Placed]:
    """Both streams of one replica by time."""
    streams: list[list[_Placed]] = []
    for stream in STREAMS:
        end = math.inf if ends is None else ends.get(directory / f"{stream}.log", 0)
        streams.append(_read_stream(agent, directory, stream, since, tail, end))
    placed = list(merge(*streams, key=_when))
    return placed if tail is None else placed[max(0, len(placed) - tail) :]


def _when(placed: _Placed) -> float:
    return placed[0]


def _read_stream(
    agent: str, directory: Path, stream: str, since: float | None, tail: int | None, end: float
) -> list[_Placed]:
    """One stream from its oldest copy on, or, for a tail, from the newest backwards until there is enough."""
    segments: list[list[_Placed]] = []
    found = 0
    current = directory / f"{stream}.log"
    number = 0
    while (path := numbered(current, number)).exists():
        lines: deque[LogLine] = deque(maxlen=tail)
        lines.extend(_read_segment(agent, directory, stream, path, number, since, math.inf if number else end))
        segments.append(_place(lines, path.stat().st_mtime))
        found += len(lines)
        number += 1
        if tail is not None and found >= tail:
            break
    return [placed for segment in reversed(segments) for placed in segment]


def _place(lines: Sequence[LogLine], written_at: float) -> list[_Placed]:
    """Each line of one file with what it sorts by, which never falls: its time, or for one of unknown time that of the
    next line that has one, as it was written before that."""
    place = max([written_at, *(line.at for line in lines if line.at is not None)])
    placed: list[_Placed] = []
    for line in reversed(lines):
        place = place if line.at is None else min(place, line.at)
        placed.append((place, line))
    placed.reverse()
    return placed


def _read_segment(
    agent: str, directory: Path, stream: str, path: Path, number: int, since: float | None, end: float
) -> Iterator[LogLine]:
    marks = read_marks(numbered(directory / f"{stream}.marks", number))
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
            content = _read_from(numbered(self.path, 1), self.offset)
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
