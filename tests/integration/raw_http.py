"""HTTP as attackers write it: bytes on a socket, and frames of HTTP/2 that no library would send."""

from __future__ import annotations

import asyncio
import re
import struct
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4


async def talk(port: int, data: bytes, *, answer_s: float = 10.0) -> bytes:
    """Sends bytes on a connection of their own; what came back until its end, or until no other answer follows."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        writer.write(data)
        while True:
            async with asyncio.timeout(0.2 if _are_whole(got) else answer_s):
                part = await reader.read(65536)
            if not part:
                return got
            got += part
    except (TimeoutError, ConnectionError):
        return got
    finally:
        writer.close()


def _are_whole(answers: bytes) -> bool:
    """Whether there is one at least, and of each all that its length says."""
    head, end, rest = answers.partition(b"\r\n\r\n")
    length = re.search(rb"\ncontent-length: *(\d+)", head.lower())
    body = int(length[1]) if length else 0
    return bool(end) and len(rest) >= body and (len(rest) == body or _are_whole(rest[body:]))


def statuses(answer: bytes) -> list[int]:
    """Of all HTTP/1 answers within what came back."""
    return [int(part.split(b" ", 2)[1]) for part in answer.split(b"HTTP/1.")[1:] if part[1:2] == b" "]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that is in no table, without Huffman's code."""
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def _length(value: int, prefix: int = 7) -> bytes:
    most = (1 << prefix) - 1
    if value < most:
        return bytes([value])
    value -= most
    octets = [most]
    while value >= 128:
        octets.append(value % 128 + 128)
        value //= 128
    return bytes([*octets, value])


def request_block(path: bytes, *more: tuple[bytes, bytes], method: bytes = b"GET") -> bytes:
    pseudo = ((b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"))
    return b"".join(literal(name, value) for name, value in (*pseudo, *more))


@dataclass
class H2:
    """One connection with prior knowledge. What comes back is read only when asked for."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    closed: bool = False

    async def send(self, *frames: bytes) -> bool:
        """False once Envoy has ended the connection."""
        try:
            self.writer.write(b"".join(frames))
            async with asyncio.timeout(0.5):
                await self.writer.drain()
        except TimeoutError:
            return not self.closed  # it does not read any more, which is its right
        except ConnectionError:
            self.closed = True
        return not self.closed

    async def frames(self, within_s: float = 2.0, until: int | None = None) -> list[tuple[int, int, int, bytes]]:
        """Kind, flags, stream, payload of what comes until the end, a frame of kind `until`, or for so long."""
        found: list[tuple[int, int, int, bytes]] = []
        try:
            async with asyncio.timeout(within_s):
                while not found or found[-1][0] != until:
                    head = await self.reader.readexactly(9)
                    payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                    found.append((head[3], head[4], int.from_bytes(head[5:], "big"), payload))
        except TimeoutError:
            pass
        except (EOFError, ConnectionError):
            self.closed = True
        return found


async def open_h2(port: int) -> H2:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + frame(SETTINGS, 0, 0))
    return H2(reader, writer)
