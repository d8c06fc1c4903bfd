"""When pods become ready, as a watch of the API server tells it: the same eye for Shoal's and for Kubernetes' own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.informer import Informer
from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.read import condition


class ReadyPods:
    """`at` has when each pod was first seen to be ready, by this machine's monotonic clock."""

    def __init__(self, kubernetes: Kubernetes, labels: Mapping[str, str]) -> None:
        self.at: dict[str, float] = {}
        self.listed = asyncio.Event()
        self._news = asyncio.Event()
        self.informer = Informer(kubernetes, POD, labels, self._note)

    def _note(self, pod: Mapping[str, Any] | None) -> None:
        now = time.monotonic()
        for each in self.informer.items.values() if pod is None else [pod]:
            if condition(each, "Ready").get("status") == "True":
                self.at.setdefault(each["metadata"]["name"], now)
        self._news.set()
        if pod is None:
            self.listed.set()

    async def first_since(self, began: float, within_s: float) -> float | None:
        """When the first one did from a moment on; `None` where none does in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    if later := [at for at in self.at.values() if at >= began]:
                        return min(later)
                    self._news.clear()
                    await self._news.wait()
        return None


@contextlib.asynccontextmanager
async def ready_pods(kubernetes: Kubernetes, labels: Mapping[str, str]) -> AsyncGenerator[ReadyPods]:
    """Those with the labels, watched within the block."""
    pods = ReadyPods(kubernetes, labels)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(pods.informer.run())
        await pods.listed.wait()
        try:
            yield pods
        finally:
            watching.cancel()
