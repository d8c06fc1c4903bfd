"""An open-loop load inside of a case: requests leave on time, whatever became of those before."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator

import aiohttp


class Load:
    """What came of the requests: `outcomes` counts statuses and kinds of errors."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.replicas: Counter[str] = Counter()

    @property
    def failed(self) -> dict[str, int]:
        """All that did not answer 200."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "200"}

    async def one(self, http: aiohttp.ClientSession, url: str) -> None:
        try:
            async with http.get(url) as answer:
                body = await answer.json(content_type=None)
                self.outcomes[str(answer.status)] += 1
                if answer.status == 200:
                    self.versions[body["version"]] += 1
                    self.replicas[body["replica"]] += 1
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.outcomes[type(error).__name__] += 1


@contextlib.asynccontextmanager
async def load(url: str, per_second: float, *, new_connections: bool = False) -> AsyncGenerator[Load]:
    """Runs for as long as the block; every second request on a new connection, or all of them."""
    result = Load()
    stop = asyncio.Event()
    kept = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    fresh = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))

    async def send() -> None:
        started, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as requests:
            while not stop.is_set():
                requests.create_task(result.one(fresh if new_connections or number % 2 else kept, url))
                number += 1
                await asyncio.sleep(max(0.0, started + number / per_second - time.monotonic()))

    async with kept, fresh, asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        try:
            yield result
        finally:
            stop.set()
