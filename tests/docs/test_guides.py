"""The documentation does what it says: its commands are typed, and what they show is compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs.guide import read_steps
from tests.docs.reader import Reader

REPOSITORY = Path(__file__).parents[2]
GUIDES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs" / "guides").glob("*.md"))]
AT_ONCE = 3  # a reader mostly waits


def follow(guide: Path) -> list[str]:
    """Take all steps of a guide; gives the processes that are left then."""
    with tempfile.TemporaryDirectory(prefix="sg-", dir="/tmp") as home:  # short, as Unix sockets lie in it
        reader = Reader(Path(home))
        try:
            for step in read_steps(guide):
                reader.take(step)
            return reader.left_behind()
        finally:
            reader.leave()


@pytest.fixture(scope="module")
def readers(request: pytest.FixtureRequest) -> Iterator[dict[Path, Future[list[str]]]]:
    """A reader for each guide that is asked for, several at once."""
    chosen = [
        guide for guide in GUIDES if any(item.name == f"test_guide[{guide.stem}]" for item in request.session.items)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {guide: pool.submit(follow, guide) for guide in chosen}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_guide(guide: Path, readers: dict[Path, Future[list[str]]]) -> None:
    """Followed from its first line to its last, a guide shows what it says, and leaves no fleet running."""
    assert readers[guide].result() == []
