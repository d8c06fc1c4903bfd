"""The agent of the scaling benches: answers after a while, and notes when it did what for the first time.

A program of its own without any import of Shoal's, so that its start is that of a small service. `PORT`: where it
listens; `SERVICE_S`: how long a request takes, but for `/who` and `/healthz`; `MARKS`: a directory for its notes, one
file a replica, `{"mark", "at"}` a line with epoch seconds.
"""

import time

MAIN = time.time()  # before the imports, which are most of a start

# ruff: noqa: E402
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

REPLICA = os.environ.get("SHOAL_REPLICA", "alone")
SERVICE_S = float(os.environ.get("SERVICE_S", "0"))


class Marks:
    """Notes the first time of each thing."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        directory = os.environ.get("MARKS")
        self._path = Path(directory) / f"{REPLICA}.jsonl" if directory else None
        if directory:
            Path(directory).mkdir(exist_ok=True)

    def note(self, mark: str, at: float | None = None) -> None:
        if self._path is None or mark in self._seen:
            return
        self._seen.add(mark)
        with self._path.open("a") as file:
            file.write(json.dumps({"mark": mark, "at": at or time.time()}) + "\n")


class Server(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, for requests without a body."""

    marks = Marks()

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._serve(head)

    def _serve(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path == b"/healthz":
            self.marks.note("engine-check" if b"User-Agent: shoal" in head else "gateway-check")
            self._answer()
        elif path == b"/who":
            self.marks.note("request")
            self._answer()
        else:
            self.marks.note("request")
            asyncio.get_running_loop().call_later(SERVICE_S, self._answer)

    def _answer(self) -> None:
        if isinstance(self._transport, asyncio.Transport) and not self._transport.is_closing():
            self._transport.write(f"HTTP/1.1 200 OK\r\nX-Replica: {REPLICA}\r\nContent-Length: 3\r\n\r\nok\n".encode())


async def serve() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Server, "127.0.0.1", int(os.environ["PORT"]), backlog=1024)
    Server.marks.note("main", MAIN)
    Server.marks.note("listening")
    await stop.wait()
    server.close()
    await asyncio.sleep(SERVICE_S + 0.1)  # what is under way ends


if __name__ == "__main__":
    asyncio.run(serve())
    sys.exit(0)
