"""What a gateway process keeps on disk: the last snapshot, and the lock that says that the directory is taken."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from shoal.core.routing import Snapshot
from shoal.errors import GatewayError
from shoal.proxy.codec import SnapshotWriter, loads

log = logging.getLogger(__name__)

_LOCK_S = 3.0


class SnapshotFile:
    """The last snapshot on disk: written off the loop, at most once a second, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = SnapshotWriter()  # beside us a thread that encodes 1,000 agents delays who wakes one
        self._due: Snapshot | None = None
        self._wake = asyncio.Event()

    def load(self) -> Snapshot | None:
        try:
            return loads(Snapshot, self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, GatewayError) as error:
            log.warning("can't use the stored snapshot %s, waiting for the controller: %s", self._path, error)
            return None

    def put(self, snapshot: Snapshot) -> None:
        self._due = snapshot
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.to_thread(self.flush)
            await asyncio.sleep(1.0)

    def flush(self) -> None:
        snapshot, self._due = self._due, None
        if snapshot is None:
            return
        try:
            new = self._path.with_suffix(".new")
            new.write_bytes(self._writer.dumps(snapshot))
            new.replace(self._path)
        except OSError as error:
            log.warning("can't store the snapshot in %s: %s", self._path, error)


@asynccontextmanager
async def only_one(directory: Path) -> AsyncGenerator[None]:
    """Two gateway processes in one directory would fight for one Envoy. Raises GatewayError if another stays."""
    path = directory / "gateway.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            async with asyncio.timeout(_LOCK_S):
                while not _lock(descriptor):  # noqa: ASYNC110 - nothing tells that a lock is free
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise GatewayError(f"another gateway process runs with {directory}") from None
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
