"""Docker's way to send two outputs over one connection, and the lines of its logs.

A frame is a stream's number, three zeros, the length in four bytes (big-endian), and as many bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote_plus

_HEAD = struct.Struct(">BxxxL")
_STREAMS = {0: "stdin", 1: "stdout", 2: "stderr", 3: "system"}
_NODE, _TASK = "com.docker.swarm.node.id", "com.docker.swarm.task.id"
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line of a log. `stream` is `stdout` or `stderr`; `at` is epoch seconds."""

    stream: str
    text: str
    at: float | None
    task_id: str
    node_id: str


class FrameDecoder:
    """Puts the frames together of what comes in pieces of any size."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, received: bytes) -> list[tuple[str, bytes]]:
        """The frames that are whole with this piece: stream and content."""
        pending = self._pending
        pending += received
        frames: list[tuple[str, bytes]] = []
        begin = 0
        while len(pending) - begin >= _HEAD.size:
            number, length = _HEAD.unpack_from(pending, begin)
            end = begin + _HEAD.size + length
            if len(pending) < end:
                break
            frames.append((_STREAMS.get(number, "stdout"), bytes(pending[begin + _HEAD.size : end])))
            begin = end
        del pending[:begin]
        return frames


class LineAssembler:
    """Lines out of the frames of a log that was asked for with `timestamps` and `details`.

    Docker cuts a line after 16 KiB into frames, each of which has the prefix again; only the last one ends in a
    newline.
    """

    def __init__(self) -> None:
        self._begun: dict[tuple[str, str], RawLine] = {}

    def feed(self, stream: str, content: bytes) -> RawLine | None:
        """The line that this frame ends, if it does."""
        part = _parse(stream, content.decode(errors="replace"))
        key = (part.task_id, stream)
        begun = self._begun.pop(key, None)
        if begun is not None:
            part = RawLine(stream, begun.text + part.text, begun.at, part.task_id, part.node_id)
        if not part.text.endswith("\n") and len(part.text) < _LONGEST_LINE:
            self._begun[key] = part
            return None
        return RawLine(stream, part.text.rstrip("\r\n"), part.at, part.task_id, part.node_id)

    def rest(self) -> list[RawLine]:
        """What was written last without a newline."""
        rest, self._begun = list(self._begun.values()), {}
        return rest


def _parse(stream: str, line: str) -> RawLine:
    """`TIME KEY=VALUE,KEY=VALUE TEXT`, the values quoted as in a URL."""
    time, _, rest = line.partition(" ")
    details, _, text = rest.partition(" ")
    labels = _labels(details)
    return RawLine(stream, text, _epoch_s(time), labels.get(_TASK, ""), labels.get(_NODE, ""))


def _labels(details: str) -> Mapping[str, str]:
    pairs = (pair.partition("=") for pair in details.split(","))
    return {unquote_plus(key): unquote_plus(value) for key, _, value in pairs}


def _epoch_s(time: str) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None


class LineSplitter:
    """Cuts what comes in pieces of any size into lines, however long; empty ones are left out."""

    def __init__(self) -> None:
        self._pending: list[bytes] = []

    def feed(self, received: bytes) -> list[bytes]:
        """The lines that are whole with this piece, without their ends."""
        first, *others = received.split(b"\n")
        self._pending.append(first)
        if not others:
            return []
        lines = [b"".join(self._pending), *others[:-1]]
        self._pending = [others[-1]]
        return [line for line in lines if line]
