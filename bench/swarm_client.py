"""Load from within a Swarm's network, given to a container's Python as its text: the standard library alone.

RATE requests a second leave on time for http://TARGET:8000/, each on a new connection to whichever address the name has
then; what became of them goes to SINK twice a second, as a JSON object of counts.
"""

import asyncio
import json
import os
import socket
import urllib.request
from collections import Counter

TARGET, RATE, SINK = os.environ["TARGET"], float(os.environ["RATE"]), os.environ["SINK"]
TIMEOUT_S = 10.0
counts: "Counter[str]" = Counter()


async def one() -> None:
    outcome = "timeout"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(TARGET, 8000, family=socket.AF_INET)
            try:
                writer.write(f"GET / HTTP/1.1\r\nHost: {TARGET}\r\nConnection: close\r\n\r\n".encode())
                answer = await reader.read()
                outcome = "ok" if answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"ok") else "reset"
            finally:
                writer.close()
    except TimeoutError:
        outcome = "timeout"
    except socket.gaierror:
        outcome = "no-address"
    except ConnectionRefusedError:
        outcome = "refused"
    except OSError:
        outcome = "reset"
    counts[outcome] += 1


async def tell() -> None:
    while True:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(say, json.dumps(counts).encode())


def say(said: bytes) -> None:
    urllib.request.urlopen(SINK, said, timeout=10).close()


async def main() -> None:
    loop = asyncio.get_running_loop()
    began, number = loop.time(), 0
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tell())
        while True:
            tasks.create_task(one())
            number += 1
            await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))


asyncio.run(main())
