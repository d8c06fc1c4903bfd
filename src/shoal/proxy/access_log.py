"""Keeps the access log within its bounds: Envoy writes it, and opens it anew when told."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from shoal.errors import GatewayError
from shoal.proxy.admin import Admin

log = logging.getLogger(__name__)

MOST_BYTES = 64 << 20
_KEPT = 3  # older files, .1 the newest
_LOOK_S = 2.0


class AccessLog:
    """`path` and its older files `path.1` to `path.3`."""

    def __init__(self, path: Path, admin: Admin, most_bytes: int = MOST_BYTES) -> None:
        self._path, self._admin, self._most_bytes = path, admin, most_bytes

    async def run(self) -> None:
        """Rotates until cancelled."""
        moved = False
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                moved = self.rotate() or moved
                if moved:  # until Envoy was told it writes on into the older file
                    await self._admin.get("/reopen_logs", method="POST")
                    moved = False
            except (OSError, GatewayError) as error:
                log.warning("can't rotate %s: %s", self._path, error)

    def rotate(self) -> bool:
        """Whether the file was put aside, and Envoy is to be told."""
        if not self._path.exists() or self._path.stat().st_size < self._most_bytes:
            return False
        files = [self._path, *(self._path.with_name(f"{self._path.name}.{number + 1}") for number in range(_KEPT))]
        for older, newer in zip(reversed(files[1:]), reversed(files[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)
        return True
