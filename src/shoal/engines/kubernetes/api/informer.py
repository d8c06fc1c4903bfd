"""All objects of a kind as they are now: listed once, and watched from there.

A watch that ends goes on from the last version seen; one that fails, or whose version is too old for the server, is
listed again, ever more rarely where that goes on. While the server is away what was known stays, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from shoal.engines.kubernetes.api.client import Kubernetes
from shoal.engines.kubernetes.api.kinds import POD, Kind
from shoal.engines.kubernetes.api.refusals import KubernetesError
from shoal.errors import EngineError

log = logging.getLogger(__name__)

_BACK_OFF_S = 0.2
_LONGEST_BACK_OFF_S = 4.0
_MOST_DOUBLINGS = 10  # a server may be away for days, and no number is as large as what comes of doubling till then
_LASTED_S = 10.0  # what held so long and then fails is no failure in a row
_EXPIRES_OFTEN_S = 60.0  # versions that last no longer are listed again ever more rarely

Object = Mapping[str, Any]


class Informer:
    """Objects by name. `changed` is called with the one that changed, after it did, and with `None` when all were
    listed or nothing is heard; `fields` is a selector, for what has no labels of ours."""

    def __init__(
        self,
        kubernetes: Kubernetes,
        kind: Kind,
        labels: Mapping[str, str],
        changed: Callable[[Object | None], None],
        fields: str = "",
    ) -> None:
        self._kubernetes, self._kind, self._labels, self._changed = kubernetes, kind, labels, changed
        self._fields = fields
        self.items: dict[str, Object] = {}
        self.synced = False  # listed at least once
        self.pages = 0  # listed so far
        self.away: EngineError | None = None  # why nothing is heard now
        self._version = ""

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        expired, expired_at = 0, float("-inf")
        loop = asyncio.get_running_loop()
        while True:
            begun_at = loop.time()
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                failures = 0
                await asyncio.sleep(_BACK_OFF_S)  # whoever ends watches as soon as they begin is not flooded
            except EngineError as error:
                self._version = ""  # a watch on which nothing happens would not tell that it goes on
                if isinstance(error, KubernetesError) and error.status == 410:
                    expired = expired + 1 if loop.time() - expired_at < _EXPIRES_OFTEN_S else 0
                    expired_at = loop.time()
                    if expired:
                        await asyncio.sleep(_pause_s(expired))
                    continue
                failures = failures + 1 if loop.time() - begun_at < _LASTED_S else 1
                if self.away is None:
                    log.warning("%s are not heard of: %s", self._kind.plural, error)
                self.away = error
                self._changed(None)
                await asyncio.sleep(_pause_s(failures))

    async def _list(self) -> None:
        items: dict[str, Object] = {}
        version = ""
        async with aclosing(self._kubernetes.pages(self._kind, self._labels, fields=self._fields)) as pages:
            async for page, at in pages:
                items |= {item["metadata"]["name"]: self._kept(item) for item in page}
                version = at
                self.pages += 1
        self.items, self._version, self.synced, self.away = items, version, True, None
        self._changed(None)

    async def _watch(self) -> None:
        watching = self._kubernetes.watch(self._kind, self._labels, self._version, fields=self._fields)
        async with aclosing(watching) as events:
            async for what, item in events:
                self._version = item["metadata"]["resourceVersion"]
                if what == "BOOKMARK":
                    continue
                if what == "DELETED":
                    self.items.pop(item["metadata"]["name"], None)
                    self._changed(item)
                elif self.put(item):
                    self._changed(item)

    def put(self, item: Object) -> bool:
        """Notes an object as a watch or a write gave it, unless a later one is known; says whether it did."""
        name = item["metadata"]["name"]
        there = self.items.get(name)
        if there is not None and _version_of(there) > _version_of(item):
            return False
        self.items[name] = self._kept(item)
        return True

    def _kept(self, item: Object) -> Object:
        """Of a pod without the note of who set each field: it is half of its memory, and nobody reads it there."""
        if self._kind == POD:
            item["metadata"].pop("managedFields", None)
        return item


def _pause_s(failures: int) -> float:
    """After so many in a row."""
    return random.uniform(0.5, 1) * min(_LONGEST_BACK_OFF_S, _BACK_OFF_S * 2.0 ** min(failures, _MOST_DOUBLINGS))


def _version_of(item: Object) -> int:
    """Later ones are greater."""
    return int(item["metadata"]["resourceVersion"])
