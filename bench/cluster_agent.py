"""The agent of the benches on a cluster, given to a container's Python as its text: the standard library alone.

Answers each request after BURN_S of work and SERVICE_S of waiting with its name in X-Replica, says at SINK that it
serves, and at SIGTERM takes no more connections, answers what it has, and ends.
"""

import asyncio
import os
import signal
import time
import urllib.request

SERVICE_S = float(os.environ.get("SERVICE_S", "0.02"))
BURN_S = float(os.environ.get("BURN_S", "0"))
NAME = os.environ.get("SHOAL_REPLICA", "?")
HEAD = f"HTTP/1.1 200 OK\r\nX-Replica: {NAME}\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"


class Server:
    """HTTP/1.1 with keep-alive; a body is not looked at."""

    def __init__(self) -> None:
        self.busy: set[asyncio.StreamWriter] = set()
        self.idle = asyncio.Event()
        self.ending = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        last = False
        try:
            while not last:
                head = await reader.readuntil(b"\r\n\r\n")
                self.busy.add(writer)
                if b" /healthz " not in head.partition(b"\r\n")[0]:
                    burn()
                    await asyncio.sleep(SERVICE_S)
                last = self.ending or b"connection: close" in head.lower()
                writer.write(f"{HEAD}Connection: {'close' if last else 'keep-alive'}\r\n\r\nok".encode())
                await writer.drain()
                self._done(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._done(writer)
        writer.close()

    def _done(self, writer: asyncio.StreamWriter) -> None:
        self.busy.discard(writer)
        if not self.busy:
            self.idle.set()


async def main() -> None:
    told, agent = asyncio.Event(), Server()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    server = await asyncio.start_server(agent.serve, "", int(os.environ.get("PORT", "8000")), backlog=1024)
    await asyncio.to_thread(say)
    await told.wait()
    agent.ending = True
    server.close()
    while agent.busy:
        agent.idle.clear()
        await agent.idle.wait()


def burn() -> None:
    began = time.thread_time()
    while time.thread_time() - began < BURN_S:
        pass


def say() -> None:
    if "SINK" in os.environ:
        urllib.request.urlopen(os.environ["SINK"], NAME.encode(), timeout=10).close()


asyncio.run(main())
