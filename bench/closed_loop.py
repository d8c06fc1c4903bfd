"""As many requests as a server takes over a fixed number of connections: by wrk, else by a loop of our own.

Our own loop is slower than the proxies that it measures; a row that used it says so.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from urllib.parse import urlsplit

from bench.load_http import Connection

CONNECTIONS = 32


def load_tool() -> str:
    """What sends the requests on this machine."""
    return "wrk" if shutil.which("wrk") else "own loop (wrk is missing: apt-get install wrk)"


def requests_per_s(url: str, seconds: int) -> float:
    """Raises ValueError where anything but good answers came: such a figure says nothing."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return asyncio.run(_send(url, seconds))
    argv = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30, check=True)
    return parse_wrk(ran.stdout)


def parse_wrk(output: str) -> float:
    """Requests a second in what wrk says. Raises ValueError where it says that something failed, or nothing."""
    found = re.search(r"^Requests/sec:\s+([\d.]+)", output, re.MULTILINE)
    if found is None or "Non-2xx" in output or "Socket errors" in output:
        raise ValueError(f"expected good answers only, wrk says:\n{output}")
    return float(found[1])


async def _send(url: str, seconds: int) -> float:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    data = f"GET {parts.path or '/'} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode()
    deadline = time.monotonic() + seconds

    async def one() -> int:
        done = 0
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
        while time.monotonic() < deadline:
            answer = await connection.send("GET", data)
            if answer.status != 200:
                raise ValueError(f"{url} answered {answer.status}")
            done += 1
        connection.close()
        return done

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one()) for _ in range(CONNECTIONS)]
    return sum(task.result() for task in running) / seconds
