"""Who is healthy, read from Envoy's list of clusters."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest

from shoal.proxy.health import healthy_target, parse_healthy


def listed(*hosts: dict[str, Any]) -> bytes:
    """As Envoy 1.40 answers: what is false is left out, and without a host the list itself."""
    cluster: dict[str, Any] = {"name": "agent-a-b", "added_via_api": True}
    if hosts:
        cluster["host_statuses"] = [{"health_status": health, "weight": 1} for health in hosts]
    return json.dumps({"cluster_statuses": [cluster]}).encode()


def test_a_host_counts_when_nothing_speaks_against_it() -> None:
    good = {"eds_health_status": "HEALTHY"}
    assert parse_healthy(listed(good, good)) == {"a-b": 2}
    assert parse_healthy(listed(good, {**good, "failed_active_health_check": True})) == {"a-b": 1}
    assert parse_healthy(listed({**good, "failed_outlier_check": True})) == {"a-b": 0}
    assert parse_healthy(listed({**good, "pending_dynamic_removal": True})) == {"a-b": 0}
    assert parse_healthy(listed()) == {"a-b": 0}
    assert parse_healthy(b"{}") == {}


def test_what_is_no_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        parse_healthy(b"no clusters")


def test_only_the_named_agents_are_asked_about() -> None:
    """Anchored on both sides: `a` must not bring `a-1` to `a-999`."""
    assert unquote(healthy_target(["b", "a.b"])) == r"/clusters?format=json&filter=^(agent\-a\.b|agent\-b)$"
