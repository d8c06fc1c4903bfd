"""What docs/conformance.md promises is what the suite holds."""

from __future__ import annotations

from tests.conformance.beds import BEDS
from tests.conformance.cases import cases, modules
from tests.conformance.table import PAGE, page
from tests.conformance.versions import page as version_page
from tests.conformance.versions import read_outcomes


def test_the_page_is_fresh() -> None:
    """Run `python -m tests.conformance.table` after a change of a case or of an engine's capabilities."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_what_a_case_needs_is_a_feature() -> None:
    """One that no engine knows would be impossible everywhere by a slip of the pen."""
    known = {feature for bed in BEDS.values() for feature in bed.capabilities.table}
    needed = {feature for module in modules() for case in cases(module) for feature in case.features}
    assert needed <= known


REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.conformance.test_work" name="test_cron[kubernetes]" time="12.04"/>
<testcase classname="tests.conformance.test_work" name="test_timeout[kubernetes]" time="3">
<failure message="x"/></testcase>
<testcase classname="tests.conformance.test_seen" name="test_logs[kubernetes]" time="1"><error message="x"/></testcase>
<testcase classname="tests.conformance.test_seen" name="test_events[kubernetes]" time="0">
<skipped message="no GPU"/></testcase>
<testcase classname="tests.conformance.test_seen" name="test_exec[kubernetes]" time="2">
<skipped type="pytest.xfail" message="impossible: no"/></testcase>
</testsuite></testsuites>"""


def test_a_run_on_a_version_says_what_came_of_each_test() -> None:
    """Nothing that failed or was skipped is left out of its page."""
    written = version_page("1.36.3", "2026-01-02", read_outcomes(REPORT)).splitlines()
    assert written[0] == "# Kubernetes 1.36.3"
    assert "VERSION=1.36` on 2026-01-02: 1 of 5 passed." in written[3]
    assert written[-5:] == [
        "| seen | events(kubernetes) | skipped: no GPU | 0.0 |",
        "| seen | exec(kubernetes) | impossible: no | 2.0 |",
        "| seen | logs(kubernetes) | failed | 1.0 |",
        "| work | cron(kubernetes) | pass | 12.0 |",
        "| work | timeout(kubernetes) | failed | 3.0 |",
    ]
