"""Each part of a fleet killed three times under load: what clients sent against what replicas worked on.

The full numbers are `make soak`'s; this is the same program.
"""

from __future__ import annotations

import random

import pytest

from bench.kills import campaign

KILLS = 3


@pytest.mark.parametrize("fault", ["replica", "gateway", "controller"])
def test_no_repeatable_request_fails(fault: str) -> None:
    result = campaign(fault, KILLS, random.Random(f"test {fault}"))

    assert result.kills == KILLS
    assert result.requests > 200  # it did run under load
    assert result.complaints == []
    assert not result.failed
    assert result.unsafe_twice == 0


@pytest.mark.parametrize(("fault", "times"), [("envoy", KILLS), ("everything", 1)])
def test_what_takes_all_requests_with_it_comes_back_by_itself(fault: str, times: int) -> None:
    """With Envoy go the requests that it works on; nothing that must not be repeated is, and all is well again."""
    result = campaign(fault, times, random.Random(f"test {fault}"))

    assert len(result.away_s) == times
    assert result.complaints == []
    assert result.unsafe_twice == 0
    assert result.failed.total() < result.requests
