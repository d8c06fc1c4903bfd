"""What docs/conformance.md promises is what the suite holds."""

from __future__ import annotations

from tests.conformance.beds import BEDS
from tests.conformance.cases import cases, modules
from tests.conformance.table import PAGE, page


def test_the_page_is_fresh() -> None:
    """Run `python -m tests.conformance.table` after a change of a case or of an engine's capabilities."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_what_a_case_needs_is_a_feature() -> None:
    """One that no engine knows would be impossible everywhere by a slip of the pen."""
    known = {feature for bed in BEDS.values() for feature in bed.capabilities.table}
    needed = {feature for module in modules() for case in cases(module) for feature in case.features}
    assert needed <= known
