"""Streams that are kept open: each is read to its end and opened again. Prints what came of them as JSON, on SIGTERM.

    python -m bench.rolling_streams PORT PATH STREAMS SECONDS

A stream is whole when the answer says that it ended; one that breaks off, or is refused, is counted apart.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter

from bench.load_http import Connection


async def keep_open(port: int, path: str, seconds: int, outcomes: Counter[str], stopping: asyncio.Event) -> None:
    """One stream after the other."""
    request = f"GET {path}?n={seconds * 10} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    while not stopping.is_set():
        connection: Connection | None = None
        try:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
            answer = await connection.send("GET", request)
            outcomes["whole" if answer.status == 200 else f"http-{answer.status}"] += 1
        except ConnectionRefusedError:
            outcomes["refused"] += 1
        except ConnectionResetError:
            outcomes["cut"] += 1
        finally:
            if connection is not None:
                connection.close()


async def main() -> None:
    port, path, streams, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    outcomes: Counter[str] = Counter()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(keep_open(port, path, seconds, outcomes, stopping))
            await asyncio.sleep(seconds / streams)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    asyncio.run(main())
