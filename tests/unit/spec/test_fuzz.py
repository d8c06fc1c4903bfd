"""Whatever is written, it is a fleet or it is refused with places: nothing else can happen."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.errors import SpecError
from shoal.spec import Fleet, load
from shoal.spec.nodes import plain_data
from shoal.spec.reading import parse_yaml

EXAMPLE = (Path(__file__).parent / "data" / "warehouse.yaml").read_text()
STRANGE: list[Any] = [
    None, True, -1, 0, 3, 10**30, 1.5, float("inf"), float("nan"), "", "x", "no", "a b", "$", "${A", "${A:-b}",
    "$PORT", "010", "/", "70%", "1h", "5 GB", "* * * * *", "é\u0000", "x" * 300, [], [None], ["x"], [[]], {}, {"x": 1},
    {"": None}, "cron", "L * * * *", "٣", "1e400", "999999999999d", "../..", "Europe", "http://", "a:b:c", "<<",
]  # fmt: skip
few = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(path: Path) -> None:
    """Loads each environment; the fleet survives storing, a refusal names a place and a message."""
    for environment in (None, "dev", "staging"):
        try:
            fleet = load([path], environment, variables={"A": "b"}).fleet
        except SpecError as error:
            assert error.problems
            for problem in error.problems:
                assert problem.place is not None and problem.place.line >= 1 and problem.place.column >= 1
                assert problem.message
        else:
            assert Fleet.from_document(fleet.to_document()) == fleet


def mutate(node: Any, chance: random.Random) -> Any:
    """The document with one thing changed somewhere: a value, a key, something gone or double."""
    if isinstance(node, dict) and node and chance.random() < 0.85:
        key = chance.choice(sorted(node))
        changed = dict(node)
        action = chance.random()
        if action < 0.75:
            changed[key] = mutate(node[key], chance)
        elif action < 0.85:
            del changed[key]
        else:
            changed[chance.choice([key.upper(), f"{key}s", "scale", "port", "x-y", "queue", "1", key[:-1]])] = node[key]
        return changed
    if isinstance(node, list) and node and chance.random() < 0.7:
        index = chance.randrange(len(node))
        return [*node[:index], mutate(node[index], chance), *node[index:]]
    return chance.choice(STRANGE)


def as_yaml(node: Any) -> str:
    """JSON is YAML, but for what JSON has no word for."""
    if isinstance(node, dict):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(value)}" for key, value in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(as_yaml, node)) + "]"
    if isinstance(node, str):
        return '"' + "".join(f"\\u{ord(character):04x}" for character in node) + '"'
    if isinstance(node, float) and not math.isfinite(node):
        return ".nan" if math.isnan(node) else ".inf"
    return "null" if node is None else str(node).lower()


@few
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_a_changed_spec_is_read_or_refused(tmp_path: Path, seed: int, times: int) -> None:
    """One to four changes of meaning."""
    chance = random.Random(seed)
    node, _ = parse_yaml(EXAMPLE, "f.yaml")
    assert node is not None
    document = plain_data(node)
    for _ in range(times):
        document = mutate(document, chance)
    path = tmp_path / "shoal.yaml"
    path.write_text(as_yaml(document))
    read_or_refuse(path)


@few
@given(st.integers(0, len(EXAMPLE) - 1), st.integers(0, 8), st.text("{}[]:,&*!|>'\"%@`#-? \n\t$<~ax1", max_size=6))
def test_a_changed_text_is_read_or_refused(tmp_path: Path, at: int, gone: int, added: str) -> None:
    """A few characters replaced by others."""
    path = tmp_path / "shoal.yaml"
    path.write_text(EXAMPLE[:at] + added + EXAMPLE[at + gone :])
    read_or_refuse(path)


@few
@given(st.binary(max_size=60))
def test_any_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    """No fleet is that short."""
    path = tmp_path / "shoal.yaml"
    path.write_bytes(content)
    read_or_refuse(path)


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
    assert set(read(as_yaml(plain_data(node))).fleet.agents) == {
        "ingest", "inventory", "image-processing", "forecasting",
    }  # fmt: skip
