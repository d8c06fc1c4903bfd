"""The engine is a parameter of every case."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.conformance.bed import LocalBed


@pytest.fixture(params=["local"])
async def bed(request: pytest.FixtureRequest) -> AsyncIterator[LocalBed]:
    # Not pytest's own folder: its long name would leave no room for the names of sockets.
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
            made = LocalBed(Path(folder), http)
            try:
                yield made
            finally:
                await made.close()
