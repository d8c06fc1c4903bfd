"""HTTP/1.1 as the load generator needs it: one request a connection at a time, the end of the answer, no body kept.

Client libraries repeat requests of their own accord when a connection breaks, which would hide the very failures that
are to be counted; so this speaks over plain asyncio protocols.
"""

from __future__ import annotations

import asyncio
import time


class AnswerReader:
    """Finds the end of one HTTP/1.1 answer. Keeps no body."""

    def __init__(self, method: str) -> None:
        self.status: int | None = None
        self.reusable = True  # may the connection carry another request?
        self._method = method
        self._buffer = b""
        self._left: int | None = None  # bytes of the body or the chunk; None: until the connection closes
        self._chunked = False
        self._trailer = False

    def feed(self, data: bytes) -> bool:
        """Take what came; true once the answer is complete. Raises ValueError on what isn't HTTP."""
        self._buffer += data
        while self.status is None or self.status < 200:
            if not self._read_head():
                return False
        return self._read_chunks() if self._chunked else self._read_plain()

    def close(self) -> bool:
        """The connection ended: was that the end of the answer?"""
        return self.status is not None and self._left is None and not self._chunked

    def _read_head(self) -> bool:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._buffer = rest
        self.status = int(first.split(" ", 2)[1])
        self.reusable = headers.get("connection", "").lower() != "close"
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._left = int(length) if length is not None else None
        if self._method == "HEAD" or self.status in (204, 304):
            self._chunked, self._left = False, 0
        if self._chunked:
            self._left = 0
        return True

    def _read_plain(self) -> bool:
        if self._left is None:
            self._buffer = b""
            return False
        self._left -= len(self._buffer)
        self._buffer = b""
        return self._left <= 0

    def _read_chunks(self) -> bool:
        while True:
            if self._left:  # the chunk and the line end after it
                taken = min(self._left, len(self._buffer))
                self._left, self._buffer = self._left - taken, self._buffer[taken:]
                if self._left:
                    return False
            line, separator, rest = self._buffer.partition(b"\r\n")
            if not separator:
                return False
            self._buffer = rest
            if self._trailer:
                if not line:
                    return True
                continue
            size = int(line.split(b";")[0], 16)
            self._trailer, self._left = size == 0, size + 2 if size else 0


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._done: asyncio.Future[AnswerReader] | None = None
        self.first_byte_at: float | None = None

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, method: str, data: bytes) -> AnswerReader:
        """Send, and wait for the whole answer. Raises ConnectionResetError when it doesn't come whole."""
        if self._transport is None:
            raise ConnectionResetError
        self._reader, self.first_byte_at = AnswerReader(method), None
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        try:
            return await self._done
        finally:
            self._reader = self._done = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._done is None or self._done.done():
            self.close()  # nobody asked
            return
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        try:
            complete = self._reader.feed(data)
        except (ValueError, IndexError):
            self._done.set_exception(ConnectionResetError("not HTTP"))
            return
        if complete:
            self._done.set_result(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._reader is None or self._done is None or self._done.done():
            return
        if exc is None and self._reader.close():
            self._done.set_result(self._reader)
        else:
            self._done.set_exception(ConnectionResetError("closed before the answer was whole"))
