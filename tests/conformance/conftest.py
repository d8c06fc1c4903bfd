"""The engine is a parameter of every case, and each case passes on it or says why it can't be there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from tests.conformance.bed import FleetBed
from tests.conformance.beds import BEDS
from tests.conformance.cases import enforced, why_impossible
from tests.conformance.sink import Sink


@pytest.fixture(params=list(BEDS))
async def bed(request: pytest.FixtureRequest) -> AsyncIterator[FleetBed]:
    """An engine with room for a fleet. Where it says that a case is impossible, that has to be so: the case runs, and
    fails should it pass."""
    bed_class = BEDS[request.param]
    reason = why_impossible(enforced(request.node.iter_markers()), bed_class.capabilities)
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=f"impossible: {reason}", raises=AssertionError, strict=True))
    async with bed_class.opened() as made:
        yield made


@pytest.fixture
async def neighbour(bed: FleetBed) -> AsyncIterator[FleetBed]:
    """Another fleet on the same engine."""
    made = type(bed)(bed.home, bed.http, "neighbour")
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def sink(bed: FleetBed) -> AsyncIterator[Sink]:
    """Where its agents say what they did."""
    async with Sink().listen(bed.sink_host) as listening:
        yield listening


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A case passes or is impossible, where there is the engine; one that was skipped is neither, and has failed."""
    report = yield
    skipped = call.when == "call" and call.excinfo is not None and isinstance(call.excinfo.value, pytest.skip.Exception)
    if skipped and Path(__file__).parent in item.path.parents:
        report.outcome, report.longrepr = "failed", f"neither pass nor impossible: {call.excinfo}"
    return report
