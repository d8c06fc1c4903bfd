"""Whatever is written, it is a fleet or it is refused with places: nothing else can happen. `make soak` asks more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import soak_specs
from bench.soak_specs import ENVIRONMENTS, find_fault, make_document, read_seeds, render_yaml, run_documents
from shoal.errors import SpecError
from shoal.spec import load
from shoal.spec.nodes import plain_data
from shoal.spec.reading import parse_yaml

EXAMPLE = (Path(__file__).parent / "data" / "warehouse.yaml").read_text()
few = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_mutated_specs_are_read_or_refused() -> None:
    """Slips in text, tokens, trees and bytes of the repository's own specs."""
    tally = run_documents(seed=1, numbers=range(300))
    assert tally.faults == []
    assert sum(tally.became.values()) == 300
    assert tally.became["refused"] > 100 and tally.became["read"] > 3  # neither all nonsense nor all harmless


def test_a_document_is_known_by_its_number() -> None:
    """A fault can be had again."""
    seeds = read_seeds()
    assert [make_document(seeds, 1, number) for number in range(8)] == [
        make_document(seeds, 1, number) for number in range(8)
    ]
    assert len({make_document(seeds, seed, 0) for seed in range(5)}) == 5


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), SpecError([])])
def test_a_traceback_or_a_refusal_without_a_place_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What the campaign is for would be seen by it."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(soak_specs, "load", fail)
    assert find_fault(tmp_path / "shoal.yaml")[1]


@few
@given(st.integers(0, len(EXAMPLE) - 1), st.integers(0, 8), st.text("{}[]:,&*!|>'\"%@`#-? \n\t$<~ax1", max_size=6))
def test_a_changed_text_is_read_or_refused(tmp_path: Path, at: int, gone: int, added: str) -> None:
    """A few characters replaced by others."""
    path = tmp_path / "shoal.yaml"
    path.write_text(EXAMPLE[:at] + added + EXAMPLE[at + gone :])
    assert [find_fault(path, environment)[1] for environment in ENVIRONMENTS] == ["", "", ""]


@few
@given(st.binary(max_size=60))
def test_any_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    """No fleet is that short."""
    path = tmp_path / "shoal.yaml"
    path.write_bytes(content)
    assert find_fault(path) == ("refused", "")


@few
@given(st.text('agents.ingest=scale"[]{}: 13$\n', max_size=40))
def test_any_setting_is_taken_or_refused(tmp_path: Path, setting: str) -> None:
    """A slip on the command line is no traceback."""
    path = tmp_path / "shoal.yaml"
    path.write_text(EXAMPLE)
    try:
        load([path], sets=[setting])
    except SpecError as error:
        assert all(problem.place is not None for problem in error.problems)


def test_the_example_is_mutated_for_real(read: Callable[..., Any]) -> None:
    """The writer of the fuzz writes what it means: without a change the example holds."""
    node, _ = parse_yaml(EXAMPLE, "f.yaml")
    assert node is not None
    assert set(read(render_yaml(plain_data(node))).fleet.agents) == {
        "ingest", "inventory", "image-processing", "forecasting",
    }  # fmt: skip
