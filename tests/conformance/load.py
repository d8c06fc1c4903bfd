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
        self.lost_at: list[float] = []  # when those left that did not answer 200, on the monotonic clock

    @property
    def failed(self) -> dict[str, int]:
        """All that did not answer 200."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "200"}

    async def one(self, http: aiohttp.ClientSession, method: str, url: str) -> None:
        left_at = time.monotonic()
        try:
            async with http.request(method, url) as answer:
                if answer.status != 200:
                    words = (await answer.text()).strip()[:80]  # a gateway's, who says why nobody answered
                    self.outcomes[f"{answer.status} {words}".strip()] += 1
                    self.lost_at.append(left_at)
                    return
                body = await answer.json(content_type=None)
                self.versions[body["version"]] += 1
                self.replicas[body["replica"]] += 1
                self.outcomes["200"] += 1
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.outcomes[type(error).__name__] += 1
            self.lost_at.append(left_at)


@contextlib.asynccontextmanager
async def load(
    url: str, per_second: float, method: str = "GET", *, within_s: float | None = None
) -> AsyncGenerator[Load]:
    """Runs for as long as the block; every second request on a new connection. `NUMBER` in the URL is each one's own;
    one that is not answered within `within_s` has failed."""
    result = Load()
    stop = asyncio.Event()
    waits = aiohttp.ClientTimeout(total=within_s or 300)
    kept = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=waits)
    fresh = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=waits)

    async def send() -> None:
        started, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as requests:
            while not stop.is_set():
                requests.create_task(
                    result.one(fresh if number % 2 else kept, method, url.replace("NUMBER", f"{number}"))
                )
                number += 1
                await asyncio.sleep(max(0.0, started + number / per_second - time.monotonic()))

    async with kept, fresh, asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        try:
            yield result
        finally:
            stop.set()
