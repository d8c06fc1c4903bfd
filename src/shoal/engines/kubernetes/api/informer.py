"""All objects of a kind as they are now: listed once, and watched from there.

A watch that ends goes on from the last version seen; one whose version is too old for the server is listed again. While
the server is away what was known stays, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from shoal.engines.kubernetes.api.client import Kubernetes
from shoal.engines.kubernetes.api.kinds import Kind
from shoal.engines.kubernetes.api.refusals import KubernetesError
from shoal.errors import EngineError

log = logging.getLogger(__name__)

_BACK_OFF_S = 0.2
_LONGEST_BACK_OFF_S = 10.0

Object = Mapping[str, Any]


class Informer:
    """Objects by name. `changed` is called with the one that changed, after it did, and with `None` when all were
    listed or nothing is heard."""

    def __init__(
        self, kubernetes: Kubernetes, kind: Kind, labels: Mapping[str, str], changed: Callable[[Object | None], None]
    ) -> None:
        self._kubernetes, self._kind, self._labels, self._changed = kubernetes, kind, labels, changed
        self.items: dict[str, Object] = {}
        self.synced = False  # listed at least once
        self.away: EngineError | None = None  # why nothing is heard now
        self._version = ""

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            try:
                if not self._version:
                    await self._list()
                failures = 0
                await self._watch()
            except EngineError as error:
                if isinstance(error, KubernetesError) and error.status == 410:
                    self._version = ""
                    continue
                failures += 1
                if self.away is None:
                    log.warning("%s are not heard of: %s", self._kind.plural, error)
                self.away = error
                self._changed(None)
                await asyncio.sleep(random.uniform(0.5, 1) * min(_LONGEST_BACK_OFF_S, _BACK_OFF_S * 2**failures))

    async def _list(self) -> None:
        items, version = await self._kubernetes.list(self._kind, self._labels)
        self.items = {item["metadata"]["name"]: item for item in items}
        self._version, self.synced, self.away = version, True, None
        self._changed(None)

    async def _watch(self) -> None:
        async with aclosing(self._kubernetes.watch(self._kind, self._labels, self._version)) as events:
            async for what, item in events:
                if self.away is not None:
                    self.away = None
                    self._changed(None)
                self._version = item["metadata"]["resourceVersion"]
                if what == "BOOKMARK":
                    continue
                name = item["metadata"]["name"]
                if what == "DELETED":
                    self.items.pop(name, None)
                else:
                    self.items[name] = item
                self._changed(item)
