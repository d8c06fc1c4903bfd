"""What makes a new revision, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shoal.core.revision import REVISION_LENGTH, revision_of, template_of
from shoal.spec.model import Fleet

BASE: dict[str, Any] = {
    "image": "a:1",
    "command": ["run", "$PORT"],
    "environment": {"A": "1", "B": "2"},
    "port": 8000,
    "public": "/a",
    "calls": ["b", "c"],
    "publishes": ["q", "r"],
    "secrets": ["ONE", "TWO"],
    "resources": {"cpu": 1, "memory": "256Mi"},
    "scale": {"min": 1, "max": 3, "target": {"concurrency": 5}},
}
DIGESTS = {"ONE": "1" * 64, "TWO": "2" * 64}


def revision(digests: dict[str, str] | None = None, nonce: str = "", **changes: Any) -> str:
    fleet = Fleet.model_validate({"fleet": "f", "agents": {"a": {**BASE, **changes}}})
    return revision_of(template_of(fleet, "a", DIGESTS if digests is None else digests, nonce))


def test_a_revision_is_stable() -> None:
    """Written down here, so that a change of the hash, which would restart every replica, is seen."""
    assert revision() == "17c430d2e6"
    assert len(revision()) == REVISION_LENGTH


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": 7},
        {"public": None},
        {"public": {"path": "/b", "host": "h"}},
        {"idempotent": ["GET"]},
        {"max_requests": 5},
        {"request_timeout": "5s"},
        {"sticky": {"header": "x"}},
        {"environment": {"B": "2", "A": "1"}},
        {"calls": ["c", "b"]},
        {"publishes": ["r", "q"]},
        {"secrets": ["TWO", "ONE"]},
        {"resources": {"cpu": "1000m", "memory": "262144Ki"}},
        {"command": "run $PORT"},
    ],
)
def test_scale_limits_routes_and_order_restart_nothing(changes: dict[str, Any]) -> None:
    """Nor another way to write the same."""
    assert revision(**changes) == revision()


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "a:2"},
        {"command": ["run"]},
        {"working_dir": "/x"},
        {"environment": {"A": "1", "B": ""}},
        {"environment": {"A": "1"}},
        {"port": 8001},
        {"protocol": "grpc"},
        {"health": "/h"},
        {"health": {"start_period": 0}},
        {"resources": {"cpu": 2, "memory": "256Mi"}},
        {"resources": {"cpu": 1, "memory": "256Mi", "gpu": 1}},
        {"placement": {"require": {"a": "b"}}},
        {"placement": {"prefer": {"a": "b"}}},
        {"stateful": True},
        {"volumes": ["d:/d"]},
        {"secrets": ["ONE"]},
        {"secrets": ["ONE", {"name": "TWO", "as": "env"}]},
        {"calls": ["b"]},
        {"publishes": []},
        {"port": None, "queue": "q"},
        {"stop_grace_period": 0},
        {"nonce": "again"},
        {"digests": {"ONE": "1" * 64, "TWO": "3" * 64}},
    ],
)
def test_what_a_replica_is_made_of_makes_a_new_one(changes: dict[str, Any]) -> None:
    """The program, its surroundings, the content of its secrets, and being told so (`restart`)."""
    assert revision(**changes) != revision()


def test_an_agents_name_is_in_its_revision() -> None:
    """Equal agents of two names have names of their own."""
    fleet = Fleet.model_validate({"fleet": "f", "agents": {"a": BASE, "b": BASE}})
    assert revision_of(template_of(fleet, "a", DIGESTS)) != revision_of(template_of(fleet, "b", DIGESTS))


def test_a_field_that_is_not_used_is_not_in_the_hash() -> None:
    """So a later Shoal with one more field restarts nobody: here a template without a working directory."""
    fleet = Fleet.model_validate({"fleet": "f", "agents": {"a": BASE}})
    template = template_of(fleet, "a", DIGESTS)
    assert revision_of(replace(template, working_dir="")) == revision_of(template)


def test_an_unknown_agent_has_no_template() -> None:
    """A slip is seen where it is made."""
    with pytest.raises(KeyError):
        template_of(Fleet.model_validate({"fleet": "f", "agents": {"a": BASE}}), "b", {})
