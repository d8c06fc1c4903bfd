"""A client in a process of its own: requests with an id each until told to end, then every id that failed.

`python counting_client.py PORT CONNECTIONS` prints `serving` after the first answer; a line on standard input ends it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import pairwise


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> int:
    writer.write(f"POST /a/{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
    body = await reader.readexactly(int(fields[b"content-length"]))
    status = int(head.split(b" ", 2)[1])
    return status if status != 200 or f'"/{number}"'.encode() in body else 0


async def _load(port: int, first: int, step: int, done: asyncio.Event, results: list[tuple[int, float, int]]) -> None:
    """One connection after the other; half of the requests on new ones. A failure is 0 where there was no answer."""
    number, streams = first, None
    while not done.is_set():
        status = 0
        try:
            async with asyncio.timeout(10):
                streams = streams or await asyncio.open_connection("127.0.0.1", port)
                status = await _ask(*streams, number)
        except (OSError, EOFError, TimeoutError, ValueError, KeyError):
            status = 0
        results.append((number, time.monotonic(), status))
        if streams is not None and (status != 200 or number % 2):
            streams[1].close()
            streams = None
        if status != 200:
            await asyncio.sleep(0.005)
        number += step
    if streams is not None:
        streams[1].close()


async def main(port: int, connections: int) -> None:
    done = asyncio.Event()
    results: list[tuple[int, float, int]] = []
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, done.set)
    async with asyncio.TaskGroup() as tasks:
        for first in range(connections):
            tasks.create_task(_load(port, first, connections, done, results))
        while not results:
            await asyncio.sleep(0.005)
        print("serving", flush=True)
    ids = [number for number, _, _ in results]
    failed = [(number, at, status) for number, at, status in results if status != 200]
    served = [at for _, at, status in results if status == 200]
    served.sort()
    gap_s = max((after - before for before, after in pairwise(served)), default=0.0)
    print(json.dumps({"sent": len(ids), "distinct": len(set(ids)), "failed": failed, "longest_gap_s": gap_s}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
