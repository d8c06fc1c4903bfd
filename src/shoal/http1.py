"""HTTP/1.1, the client's half: just what the controller's API needs.

Written on asyncio's streams because importing a full HTTP client costs more than a whole `shoal status` may take. One
connection a request, which whoever asks has opened: nothing has to be kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

_CHUNK_BYTES = 256 * 1024
HEAD_LIMIT_BYTES = 64 * 1024  # of a stream that is opened for this

Headers = Sequence[tuple[str, str]]  # a name may come several times
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ProtocolError(Exception):
    """What came back is not HTTP/1.1, or ended in the middle."""


class Response:
    """An answer whose head was read; its body is read by one of the methods, once."""

    def __init__(self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self._headers = headers
        self._reader = reader

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self._chunks()])

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The lines of a body that may never end, without their ends. A line may be of any length."""
        pending: list[bytes] = []
        async for chunk in self._chunks():
            first, *others = chunk.split(b"\n")
            pending.append(first)
            for part in others:
                if line := b"".join(pending).strip():
                    yield line
                pending = [part]
        if line := b"".join(pending).strip():
            yield line

    async def _chunks(self) -> AsyncIterator[bytes]:
        if self._headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self._reader.readuntil(b"\n")).split(b";")[0], 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            return
        length = self._headers.get("content-length")
        if length is not None:
            if int(length):
                yield await self._reader.readexactly(int(length))
            return
        while chunk := await self._reader.read(_CHUNK_BYTES):
            yield chunk


@asynccontextmanager
async def request(
    streams: Streams, method: str, target: str, body: object = None, headers: Headers = ()
) -> AsyncGenerator[Response]:
    """Send a request, its body as JSON, and give the answer once its head is there. The connection ends with it.

    Raises OSError where the other side hangs up and ProtocolError where the answer is cut off.
    """
    reader, writer = streams
    try:
        writer.write(_render_request(method, target, body, headers))
        await writer.drain()
        yield await read_head(reader)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise ProtocolError(str(error)) from error
    finally:
        # By then all was said. A TLS connection that is closed politely outlives its event loop.
        writer.transport.abort()


def _render_request(method: str, target: str, body: object, headers: Headers) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = [f"{method} {target} HTTP/1.1", "Connection: close", "Accept: application/json"]
    host = [] if any(name == "Host" for name, _ in headers) else [("Host", "shoal")]
    head += [f"{name}: {value}" for name, value in (*host, *headers)]
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*head, "", ""]).encode() + content


async def read_head(reader: asyncio.StreamReader) -> Response:
    """An answer's. Raises what the stream does, ValueError and ProtocolError."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.strip().split("\r\n")
    version, status, *_ = status_line.split(" ")
    if not version.startswith("HTTP/1."):
        raise ProtocolError(f"{status_line!r} is not HTTP/1.1")
    pairs = (line.partition(":") for line in lines)
    headers: dict[str, str] = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Response(int(status), headers, reader)


def parse_json(text: bytes) -> Any:
    """JSON, or ProtocolError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ProtocolError(f"{text[:80]!r} is not JSON") from error
