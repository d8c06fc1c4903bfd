"""What `shoal config` shows is a file of the very same fleet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.soak_specs import ENVIRONMENTS, make_document, read_seeds
from shoal.cli.output import to_yaml
from shoal.errors import SpecError
from shoal.spec import Fleet, load
from shoal.spec.starter import starter_files
from shoal.spec.writable import escaped, writable_document
from tests.docs.guide import File, read_steps

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
FILES = (*sorted((ROOT / "examples").rglob("shoal.yaml")), Path(__file__).parent / "data" / "warehouse.yaml")
many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_comes_back(fleet: Fleet, directory: Path) -> None:
    """The fleet is what its written form is read as."""
    path = directory / "written.yaml"
    path.write_text(to_yaml(escaped(writable_document(fleet))), encoding="utf-8")
    assert load([path]).fleet == fleet


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_examples_come_back(path: Path, tmp_path: Path) -> None:
    """Each spec of the repository, in each of its environments; `prod.yaml` is what one of them names."""
    (tmp_path / "prod.yaml").write_text("agents: {ingest: {scale: {max: 80}}}\n")
    copy = tmp_path / "shoal.yaml"
    copy.write_bytes(path.read_bytes())
    for environment in (None, *load([copy]).environments):
        assert_comes_back(load([copy], environment).fleet, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_specs_of_the_documentation_come_back(page: Path, tmp_path: Path) -> None:
    """Each shoal.yaml that a page has a reader write; pages without one have none to read."""
    for step in read_steps(page):
        if isinstance(step, File) and step.name.endswith("shoal.yaml"):
            (tmp_path / "shoal.yaml").write_text(step.text)
            try:
                fleet = load([tmp_path / "shoal.yaml"]).fleet
            except SpecError:
                continue  # shown to be refused
            assert_comes_back(fleet, tmp_path)


def test_mutated_specs_come_back(tmp_path: Path) -> None:
    """Those of the fuzz that are fleets all the same."""
    seeds, read = read_seeds(), 0
    for number in range(200):
        document = make_document(seeds, 3, number)
        path = tmp_path / "shoal.yaml"
        path.write_bytes(document if isinstance(document, bytes) else document.encode())
        for environment in ENVIRONMENTS:
            try:
                fleet = load([path], environment).fleet
            except SpecError:
                continue
            read += 1
            assert_comes_back(fleet, tmp_path)
    assert read > 3


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.text(
    "$" + "{}PORTSHAL_:-?# '\"\n\\0123456789.e~", max_size=12
)
WORDS = st.sampled_from(["no", "null", "~", "1_000", "0o17", "010", "1e3", ".inf", "true", "$PORT", "${SHOAL_X}", "<<"])
VALUE = TEXT | WORDS
SPAN = st.floats(0.001, 1000, allow_nan=False) | st.sampled_from(["250ms", "1h30m", "1us"])
NAME = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True) | st.sampled_from(["no", "on", "null", "true"])


def _agent(kind: dict[str, Any], more: dict[str, Any], *, port: bool) -> st.SearchStrategy[dict[str, Any]]:
    variable = st.from_regex(r"[A-RT-Z_][A-Z0-9_]{0,5}", fullmatch=True).filter(lambda name: name != "PORT")
    argument = VALUE if port else VALUE.filter(lambda text: "PORT" not in text)
    return st.fixed_dictionaries(
        {"command": st.builds(lambda rest: ["run", *rest], st.lists(argument, max_size=4)), **kind},
        optional={
            "environment": st.dictionaries(variable, VALUE, max_size=3),
            "resources": st.fixed_dictionaries(
                {}, optional={"cpu": st.floats(0.001, 64), "memory": st.integers(4 * 2**20, 2**50), "gpu": st.just(1)}
            ),
            "placement": st.fixed_dictionaries({"require": st.dictionaries(NAME, VALUE, max_size=2)}),
            "working_dir": VALUE.filter(bool),
            "stop_grace_period": SPAN,
            "publishes": st.lists(st.sampled_from(["a", "b_c", "0"]), unique=True),
            **more,
        },
    )


_LIVES: dict[str, Any] = {
    "scale": st.integers(1, 9)
    | st.just({"min": 0, "max": 9, "behavior": {"scale_down": {"select_policy": "disabled"}}}),
    "update": st.just({"min_ready_time": "3s"}),
}
SERVICE = _agent(
    {"port": st.integers(1, 65535)},
    {**_LIVES, "health": st.just("/a$b"), "idempotent": st.just(["GET"]), "request_timeout": SPAN,
     "sticky": st.just({"header": "x-$"})},
    port=True,
)  # fmt: skip
STATEFUL = _agent({"port": st.just(80), "stateful": st.just(True)}, {"volumes": st.just(["a:/$b"])}, port=True)
WORKER = _agent({"queue": st.sampled_from(["a", "no"])}, _LIVES, port=False)
JOB = _agent({"schedule": st.just("0 2 * * *")}, {"timeout": SPAN, "retries": st.integers(0, 9)}, port=False)


def _doubled(value: Any) -> Any:
    """As `escaped` would, but without what it knows of commands: every `$` is doubled."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _doubled(each) for key, each in value.items()}
    return [_doubled(each) for each in value] if isinstance(value, list) else value


@many
@example({"a": {"command": ["run", "\x85", "\u2028", "\u2029"], "port": 1}}, False)
@given(st.dictionaries(NAME, SERVICE | STATEFUL | WORKER | JOB, min_size=1, max_size=4), st.booleans())
def test_any_fleet_comes_back(tmp_path: Path, agents: dict[str, Any], local: bool) -> None:
    """Whatever text is in its values: what a fleet is read from need not be known to write it."""
    document: dict[str, Any] = {"fleet": "any", "agents": _doubled(agents)}
    if local:
        document["local"] = {"gpus": 0, "labels": {"a": "$$b"}}
    path = tmp_path / "shoal.yaml"
    path.write_text(to_yaml(document), encoding="utf-8")
    fleet = load([path]).fleet
    for name, agent in agents.items():
        assert list(fleet.agents[name].command or ()) == agent["command"]
    assert_comes_back(fleet, tmp_path)


def test_the_first_file_comes_back(tmp_path: Path) -> None:
    """And what it shows is short of nulls and of what a kind has not."""
    path = tmp_path / "shoal.yaml"
    path.write_text(starter_files("demo")["shoal.yaml"])
    document = writable_document(load([path]).fleet)
    assert "spec_version" not in document
    assert "null" not in json.dumps(document)


def test_commands_are_shown_as_they_are_written() -> None:
    """`$PORT` needs no second `$`; what would be taken for a variable does."""
    shown = escaped({"command": ["$PORT", "${PORT}", "${HOME}", "$$PORT", "a$", "$1"], "environment": {"A": "$B"}})
    assert shown["command"] == ["$PORT", "${PORT}", "$${HOME}", "$$$PORT", "a$$", "$$1"]
    assert shown["environment"] == {"A": "$$B"}
