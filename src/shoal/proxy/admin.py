"""Speaks HTTP/1.1 with Envoy's admin interface over its Unix socket: one kept connection, one request at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shoal.errors import GatewayError


class Admin:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, target: str, *, method: str = "GET", timeout_s: float = 5.0) -> bytes:
        """The body of the answer. Raises GatewayError when Envoy does not answer, or not with 200."""
        async with self._lock:
            try:
                async with asyncio.timeout(timeout_s):
                    status, body = await self._exchange(method, target)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self.close()
                raise GatewayError(f"Envoy's admin interface at {self._path}: {error or 'no answer'}") from error
            except asyncio.CancelledError:
                self.close()  # an answer may still come that belongs to nobody
                raise
        if status != 200:
            raise GatewayError(f"Envoy's admin interface answered {status} to {target}: {body[:200]!r}")
        return body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, method: str, target: str) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(str(self._path), limit=1 << 20)
        reader, writer = self._streams
        writer.write(f"{method} {target} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = await _read_chunks(reader)
        if headers.get("connection") == "close":
            self.close()
        return status, body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks: list[bytes] = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readline()
    return b"".join(chunks)
