"""The documentation refers to what is there, and promises what holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shoal.spec import load
from tests.docs.guide import File, read_steps

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "examples").rglob("*.md")),
]
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of a page is a file of the repository."""
    links = [match[1] for match in _LINK.finditer(page.read_text(encoding="utf-8")) if "://" not in match[1]]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    """A guide that nobody finds is none: each page of the documentation is linked from the README."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    pages = [str(page.relative_to(REPOSITORY)) for page in (REPOSITORY / "docs").rglob("*.md")]
    assert [page for page in sorted(pages) if f"]({page})" not in readme] == []


def test_readme_fleet_is_valid(tmp_path: Path) -> None:
    """The README's shoal.yaml has no mistake."""
    file = next(step for step in read_steps(REPOSITORY / "README.md") if isinstance(step, File))
    path = tmp_path / file.name
    path.write_text(file.text)
    assert list(load([path], environment=None, sets=[], variables={}).fleet.agents) == ["hello"]


def test_readme_promises_two_commands() -> None:
    """Set-up is `make demo` and `make test`, and both are targets of the Makefile."""
    setup = (REPOSITORY / "README.md").read_text().partition("## Set up")[2].partition("## ")[0]
    targets = re.findall(r"^    make (\w+)", setup, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (REPOSITORY / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
