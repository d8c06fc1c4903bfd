"""`depends_on`: whom it may name, and that nobody waits for itself, however long the way round is."""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.spec.cycles import find_cycles

Refuse = Callable[..., list[str]]
NAMES = "abcdef"


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=4)))
def test_a_circle_is_found_where_there_is_one(depends_on: Mapping[str, list[str]]) -> None:
    """Exactly where the standard library finds one too; each is a way along the edges that ends where it began."""
    found = list(find_cycles(depends_on))
    try:
        graphlib.TopologicalSorter(depends_on).prepare()
    except graphlib.CycleError:
        assert found
    else:
        assert not found
    for cycle in found:
        assert cycle[0] == cycle[-1] and len(set(cycle)) == len(cycle) - 1
        assert all(after in depends_on[before] for before, after in itertools.pairwise(cycle))


def test_circles_are_errors_at_the_place_that_closes_them(refuse: Refuse) -> None:
    """All of them at once, each with the whole way."""
    text = """\
fleet: f
agents:
  a: {command: x, port: 1, depends_on: [b]}
  b:
    command: x
    port: 1
    depends_on: [c, a]
  c: {command: x, queue: q, depends_on: [c]}
"""
    assert refuse(text) == [
        "shoal.yaml:7:21: agents.b.depends_on[1]: a would wait for itself: a -> b -> a (leave one of them out)",
        "shoal.yaml:8:42: agents.c.depends_on[0]: c would wait for itself: c -> c (leave one of them out)",
    ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("depends_on: [stok]", "a.depends_on[0]: there is no agent 'stok' (did you mean stock?)"),
        ("depends_on: [nightly]", "a.depends_on[0]: nightly is a job, which is never ready: it runs and ends (leave"),
        ("depends_on: [out]", "a.depends_on[0]: out is outside of the fleet, so nobody knows when it is ready"),
        ("depends_on: [stock, stock]", "a.depends_on[1]: stock stands here a second time"),
        ("depends_on: stock", "a.depends_on: found 'stock'; expected a list"),
        ("depends_on: {stock: {condition: service_healthy}}", "a.depends_on: found a mapping; expected a list"),
    ],
)
def test_whom_it_may_name(refuse: Refuse, lines: str, problem: str) -> None:
    """Services and workers of the fleet, each once."""
    text = f"""\
fleet: f
agents:
  a: {{command: x, port: 1, {lines}}}
  stock: {{command: x, port: 2}}
  nightly: {{command: x, schedule: "0 2 * * *"}}
external: {{out: {{url: "http://x"}}}}
"""
    (found,) = refuse(text)
    assert problem in found and found.startswith("shoal.yaml:3:")


def test_a_job_waits_for_nobody(refuse: Refuse) -> None:
    """Its schedule says when it runs."""
    text = """\
fleet: f
agents:
  a: {command: x, schedule: "0 2 * * *", depends_on: [b]}
  b: {command: x, port: 2}
"""
    (found,) = refuse(text)
    assert "agents.a.depends_on: a job can't have this" in found


def test_what_is_wrong_elsewhere_hides_nothing(read: Callable[..., Any], refuse: Refuse) -> None:
    """An agent that is wrong in itself is still an agent."""
    text = "fleet: f\nagents:\n  a: {command: x, port: 1, depends_on: [b]}\n  b: {command: x, port: %s}\n"
    assert read(text % 2).fleet.agents["a"].depends_on == ("b",)
    (found,) = refuse(text % "two")
    assert "agents.b.port" in found
