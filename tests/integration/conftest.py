"""What the tests of the local engine begin with: a directory whose processes end with the test, an engine on it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from local_fleet import local_engine, nothing_left_running

from shoal.engines.local import LocalEngine


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A fleet's state directory."""
    with nothing_left_running(tmp_path):
        yield tmp_path / "state"


@pytest.fixture
async def engine(directory: Path) -> AsyncIterator[LocalEngine]:
    async with local_engine(directory) as engine:
        yield engine
