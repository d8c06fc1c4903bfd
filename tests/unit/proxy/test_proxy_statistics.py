"""Counts: read from Envoy's answers, merged over gateways."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.routing import Traffic
from shoal.proxy.ledger import Ledger
from shoal.proxy.sockets import grpc_address, reachable_socket
from shoal.proxy.statistics import parse_counts, parse_latencies


def test_active_includes_who_waits_for_a_connection_and_absent_is_zero() -> None:
    stats = [
        {"name": "cluster.agent-a-b.upstream_rq_active", "value": 2},
        {"name": "cluster.agent-a-b.upstream_rq_pending_active", "value": 1},
        {"name": "cluster.agent-a-b.upstream_rq_5xx", "value": 4},
        {"name": "cluster.agent-c.membership_healthy", "value": 5},
        {"name": "cluster.other.upstream_rq_active", "value": 9},
    ]
    assert parse_counts(json.dumps({"stats": stats}).encode()) == {"a-b": (3, 0, 4, 0), "c": (0, 0, 0, 5)}


def test_latencies_are_cumulative_counts() -> None:
    buckets = [{"upper_bound": 1, "interval": 0, "cumulative": 3}, {"upper_bound": 2, "interval": 0, "cumulative": 7}]
    histogram = {"name": "cluster.agent-a.upstream_rq_time", "buckets": buckets}
    body = json.dumps({"stats": [{"histograms": [histogram]}]}).encode()
    assert parse_latencies(body) == {"a": (3, 7)}
    assert parse_latencies(b'{"stats": []}') == {}


STEPS = st.lists(
    st.tuples(st.sampled_from(["g", "h"]), st.sampled_from(["count", "restart", "lose"]), st.integers(0, 9)),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_sums_never_fall_and_count_every_request_once(steps: list[tuple[str, str, int]]) -> None:
    """Whatever restarts, leaves and comes back."""
    ledger = Ledger()
    now = {"g": 0, "h": 0}
    total = 0
    for gateway, what, number in steps:
        if what == "lose":
            ledger.lose(gateway)
        elif what == "restart":
            if now[gateway] > 0:  # a count that starts anew at what it was can't be told from one that went on
                now[gateway] = 0
                ledger.update(gateway, {"a": Traffic(requests=0, healthy=1)})
        else:
            now[gateway] += number
            total += number
            ledger.update(gateway, {"a": Traffic(requests=now[gateway], active=1, latency_counts=(now[gateway],))})
        merged = ledger.merged.get("a", Traffic())
        assert merged.requests == total
        assert merged.active <= 2


def test_agents_that_are_gone_are_forgotten() -> None:
    ledger = Ledger()
    ledger.update("g", {"a": Traffic(requests=1), "b": Traffic(requests=1)})
    ledger.retain({"b"})
    assert set(ledger.merged) == {"b"}
    ledger.update("g", {}, gone=("b",))
    assert ledger.merged["b"] == Traffic(requests=1)


def test_a_short_path_stays_and_a_long_one_gets_a_private_stand_in(tmp_path: Path) -> None:
    assert reachable_socket(Path("/run/x.sock")) == Path("/run/x.sock")
    long = tmp_path / ("x" * 120) / "gateway.sock"
    short = reachable_socket(long)
    assert len(os.fsencode(short)) <= 100
    assert short == reachable_socket(long)
    assert short.name == "gateway.sock"
    assert short != reachable_socket(tmp_path / ("y" * 120) / "gateway.sock")
    assert stat.S_IMODE(short.parent.stat().st_mode) == 0o700
    assert grpc_address(f"unix:{long}") == f"unix:{short}"
    short.parent.rmdir()


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "gateway.test:443"])
def test_other_addresses_stay(address: str) -> None:
    assert grpc_address(address) == address
