"""What goes over the line arrives as it was; a change leads from any snapshot to any other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.routing import AgentRoute, Caller, Endpoint, ExternalRoute, HealthCheck, Snapshot, Traffic
from shoal.errors import GatewayError
from shoal.proxy.codec import Delta, SnapshotWriter, diff, dumps, loads, patch
from shoal.proxy.uplink import difference
from shoal.proxy.wire import Report

NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 3)
SECONDS = st.floats(0, 100)
WORDS = st.sampled_from(["", "x", "/é"])
FEW_WORDS = st.lists(WORDS, max_size=2).map(tuple)
TRAFFIC = st.builds(Traffic, NUMBERS, NUMBERS, NUMBERS, latency_counts=st.lists(NUMBERS, max_size=3).map(tuple))
ROUTES = st.builds(
    AgentRoute,
    agent=NAMES,
    protocol=WORDS,
    health=st.builds(HealthCheck, st.one_of(st.none(), WORDS), SECONDS, SECONDS, NUMBERS),
    endpoints=st.lists(st.builds(Endpoint, WORDS, WORDS, NUMBERS, NUMBERS), max_size=2).map(tuple),
    public_path=st.one_of(st.none(), WORDS),
    strip_path=st.booleans(),
    retry_methods=FEW_WORDS,
    max_requests=st.one_of(st.none(), NUMBERS),
    request_timeout_s=st.one_of(st.none(), SECONDS),
    hold=st.booleans(),
)
CALLERS = st.builds(Caller, NAMES, FEW_WORDS, st.one_of(st.none(), NUMBERS), FEW_WORDS)
EXTERNALS = st.builds(ExternalRoute, NAMES, WORDS, NUMBERS, st.booleans(), WORDS)
SNAPSHOTS = st.builds(
    Snapshot,
    fleet=WORDS,
    bind=st.just("127.0.0.1"),
    public_port=st.integers(1, 65535),
    internal_port=st.one_of(st.none(), st.integers(1, 65535)),
    gateways=st.integers(1, 9),
    agents=st.dictionaries(NAMES, ROUTES, max_size=2),
    callers=st.dictionaries(NAMES, CALLERS, max_size=2),
    externals=st.dictionaries(NAMES, EXTERNALS, max_size=2),
)


@settings(max_examples=40, deadline=None)
@given(SNAPSHOTS)
def test_a_snapshot_arrives_as_it_was(snapshot: Snapshot) -> None:
    assert loads(Snapshot, dumps(snapshot)) == snapshot


@settings(max_examples=40, deadline=None)
@given(SNAPSHOTS, SNAPSHOTS)
def test_a_writer_that_remembers_writes_the_same(one: Snapshot, other: Snapshot) -> None:
    """Whatever of the one is the same object in the other."""
    writer = SnapshotWriter()
    mixed = replace(other, agents={**one.agents, **other.agents}, externals=one.externals)
    for snapshot in (one, mixed, other, one):
        assert loads(Snapshot, writer.dumps(snapshot)) == snapshot


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.none(), SNAPSHOTS), SNAPSHOTS, st.integers(0))
def test_a_change_leads_from_one_to_the_other(before: Snapshot | None, after: Snapshot, version: int) -> None:
    delta = loads(Delta, dumps(diff(before, after, version)))
    assert (patch(before, delta), delta.version, delta.full) == (after, version, before is None)


@settings(max_examples=40, deadline=None)
@given(SNAPSHOTS)
def test_being_told_the_same_again_keeps_every_object(snapshot: Snapshot) -> None:
    """So that nothing is rendered again after a reconnection."""
    again = patch(snapshot, loads(Delta, dumps(diff(None, snapshot, 1))))
    assert all(again.agents[name] is route for name, route in snapshot.agents.items())


def test_a_change_names_only_what_changed() -> None:
    check = HealthCheck(None, 1, 1, 1)
    a, b = AgentRoute("a", "http", check), AgentRoute("b", "http", check)
    before = Snapshot("f", "::", 1, agents={"a": a, "b": b})
    changed = AgentRoute("a", "http", check, (Endpoint("r", "::1", 2),))
    delta = diff(before, Snapshot("f", "::", 1, agents={"a": changed}), 2)
    assert (delta.agents, delta.gone_agents, delta.callers) == ({"a": changed}, ("b",), {})


def test_a_neighbouring_version_is_understood() -> None:
    """Fields that are not known are passed over, those that are missing have their default."""
    text = b'{"fleet": "f", "bind": "::", "public_port": 1, "invented": [1], "agents": {}}'
    assert loads(Snapshot, text) == Snapshot("f", "::", 1)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"fleet": 1}', b'{"fleet": "f"}', b'{"agents": {"a": 3}}'])
def test_what_is_no_snapshot_is_an_error_of_ours(text: bytes) -> None:
    with pytest.raises(GatewayError, match="not a Snapshot"):
        loads(Snapshot, text)


def test_a_change_before_the_whole_is_an_error() -> None:
    with pytest.raises(GatewayError, match="before the whole"):
        patch(None, diff(Snapshot("f", "::", 1), Snapshot("f", "::", 1), 2))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, TRAFFIC), st.dictionaries(NAMES, TRAFFIC))
def test_a_report_leaves_out_what_was_said(before: dict[str, Traffic], after: dict[str, Traffic]) -> None:
    change = difference(Report(traffic=before), Report(traffic=after))
    told = {} if change is None else change.traffic
    gone = () if change is None else change.gone
    assert {name: value for name, value in (before | dict(told)).items() if name not in gone} == after
    assert all(before.get(name) != value for name, value in told.items())
