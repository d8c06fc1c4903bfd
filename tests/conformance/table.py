"""Writes docs/conformance.md: every case, and what comes of it on every engine.

Run it after a change of a case or of an engine's capabilities: `python -m tests.conformance.table`. A test fails while
the page is stale.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.beds import BEDS
from tests.conformance.cases import cases, modules, why_impossible

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
INTRODUCTION = """\
# Conformance

The behaviours that hold on every engine, case by case. Made from `tests/conformance` by
`python -m tests.conformance.table`; don't edit it.

A case runs against a real fleet, asked through what a user has: the gateway, the controller's API, the command line.
*pass*: the case has to pass there. *impossible*: the engine says so itself, in the table of its capabilities that
`shoal plan` warns from too; the case runs all the same and has to fail, so that the reason can't outlive its truth.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for module in modules():
        title, _, about = " ".join((inspect.getdoc(module) or "").split()).partition(": ")
        yield f"## {title}\n\n{about[:1].upper()}{about[1:]}\n"
        yield f"| case | what holds | {' | '.join(BEDS)} |"
        yield "|---|---|" + "---|" * len(BEDS)
        for case in cases(module):
            reasons = [why_impossible(case.features, bed.capabilities) for bed in BEDS.values()]
            outcomes = ["pass" if reason is None else f"impossible: {reason}" for reason in reasons]
            cells = [each.replace("|", "\\|") for each in (case.name, case.rule, *outcomes)]
            yield f"| {' | '.join(cells)} |"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
