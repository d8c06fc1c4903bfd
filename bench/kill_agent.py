"""The agent of the kill campaign: notes the id of each request before it answers, so that what was done is known.

A program of its own without any import of Shoal's. `HOST` and `PORT`: where it listens; `SERVICE_S`: how long a request
takes; `SINK`: a file that all replicas append to, `METHOD ID` a line, written before the answer; the path is the id of
who sends none. `/stream` sends an event every 0.1 s until the client goes or `STREAM_S` are over.
"""

import asyncio
import os
import signal
import sys

SERVICE_S = float(os.environ.get("SERVICE_S", "0.05"))
STREAM_S = float(os.environ.get("STREAM_S", "2"))
SINK = os.open(os.environ["SINK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class Server(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; a body is not looked at."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._serve(head.split(b"\r\n"))

    def _serve(self, lines: list[bytes]) -> None:
        method, path, _ = lines[0].split(b" ", 2)
        if path == b"/healthz":
            self._answer()
            return
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        os.write(SINK, method + b" " + headers.get(b"x-id", path) + b"\n")  # one write: lines of replicas don't mix
        if path == b"/stream":
            self._send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._stream(round(STREAM_S / 0.1))
        else:
            asyncio.get_running_loop().call_later(SERVICE_S, self._answer)

    def _stream(self, left: int) -> None:
        if left:
            self._send(b"9\r\ndata: x\n\n\r\n")
            asyncio.get_running_loop().call_later(0.1, self._stream, left - 1)
        else:
            self._send(b"0\r\n\r\n")

    def _answer(self) -> None:
        self._send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    host = os.environ.get("HOST", "127.0.0.1")
    server = await loop.create_server(Server, host, int(os.environ["PORT"]), backlog=1024)
    await stop.wait()
    server.close()
    await asyncio.sleep(max(SERVICE_S, STREAM_S) + 0.1)  # what is under way ends


if __name__ == "__main__":
    asyncio.run(serve())
    sys.exit(0)
