"""The JSON Schema, the reference page and the starter say what the program does."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal.spec import json_schema, load
from shoal.spec.block import Model
from shoal.spec.nodes import plain_data
from shoal.spec.reading import parse_yaml
from shoal.spec.starter import SPEC_FILE, starter_files
from shoal.spec.written import Document

FILES = starter_files("shop")
ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parent / "data"
SCHEMA = json_schema()
TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """A small judge of the part of JSON Schema that ours uses; an unknown keyword fails the test."""
    return all(keyword_fits(keyword, value, schema) for keyword in schema)


def keyword_fits(keyword: str, value: Any, schema: dict[str, Any]) -> bool:  # noqa: PLR0912 - one case a keyword
    argument = schema[keyword]
    match keyword:
        case "$schema" | "title" | "description" | "default" | "$defs":
            return True
        case "$ref":
            return fits(value, SCHEMA["$defs"][argument.removeprefix("#/$defs/")])
        case "anyOf":
            return any(fits(value, each) for each in argument)
        case "type":
            return any(TYPES[each](value) for each in ([argument] if isinstance(argument, str) else argument))
        case "enum":
            return value in argument
        case "const":
            return value == argument
        case "pattern":
            return not isinstance(value, str) or re.search(argument, value) is not None
        case "minLength" | "maxLength" | "minItems" | "maxItems":
            right = isinstance(value, str) == keyword.endswith("Length") and isinstance(value, (str, list))
            return not right or (len(value) >= argument if keyword.startswith("min") else len(value) <= argument)
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            return not TYPES["number"](value) or bound_fits(keyword, value, argument)
        case "items":
            return not isinstance(value, list) or all(fits(each, argument) for each in value)
        case "required":
            return not isinstance(value, dict) or set(argument) <= set(value)
        case "properties":
            return not isinstance(value, dict) or all(
                fits(value[key], argument[key]) for key in value if key in argument
            )
        case "patternProperties":
            assert argument == {"^x-": {}}
            return True
        case "additionalProperties":
            free = [key for key in value if key not in schema.get("properties", ())] if isinstance(value, dict) else []
            if "patternProperties" in schema:
                free = [key for key in free if not key.startswith("x-")]
            return not free if argument is False else all(fits(value[key], argument) for key in free)
    raise AssertionError(keyword)


def bound_fits(keyword: str, value: float, bound: float) -> bool:
    return {
        "minimum": value >= bound, "exclusiveMinimum": value > bound,
        "maximum": value <= bound, "exclusiveMaximum": value < bound,
    }[keyword]  # fmt: skip


def document(text: str) -> Any:
    node, _ = parse_yaml(text, "f.yaml")
    assert node is not None
    return plain_data(node)


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from parts(value)


SHORT = """\
fleet: f
image: i:1
environment: [A=1]
x-mine: {a: 1}
agents:
  a:
    command: run
    port: ${PORT_A:-8000}
    scale: 3
    health: /h
    public: /p
    environment: {A: 1, B: true, C: x}
    secrets: [ONE, {name: TWO, as: env}]
    resources: {cpu: 500m, memory: 256Mi}
    env_file: []
  b:
    queue: q
    command: [a, 1]
    scale:
      max: 3
      target: {queue_depth: 2.5}
      behavior: {scale_up: {policies: [{type: pods, value: 1, period: 15s}]}}
  c: {schedule: "0 2 * * *", command: x, env_file: a.env}
queues: {q: }
environments: {dev: {agents: {a: {scale: {max: 9}, port: null}}, files: [a.yaml]}}
"""


@pytest.mark.parametrize("text", [(DATA / "warehouse.yaml").read_text(), FILES[SPEC_FILE], SHORT])
def test_the_schema_accepts_what_is_accepted(text: str) -> None:
    """With its shorthands, variables, nulls and free keys."""
    assert fits(document(text), SCHEMA)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scale: 3", "scale: three"),
        ("scale: 3", "replicas: 3"),
        ("port: ${PORT_A:-8000}", "port: 70000"),
        ("public: /p", "public: p"),
        ("as: env", "as: file or env"),
        ("period: 15s", "periodSeconds: 15"),
        ("fleet: f\n", ""),
        ("max: 3", "max: 0"),
        ("x-mine", "mine"),
        ("files: [a.yaml]", "environments: {}"),
    ],
)
def test_the_schema_refuses_what_is_refused(old: str, new: str) -> None:
    """An editor marks it while it is written."""
    assert old in SHORT
    assert not fits(document(SHORT.replace(old, new)), SCHEMA)


def test_the_shorthands_of_the_schema_are_accepted(tmp_path: Path) -> None:
    """The other way round: what the schema's example says can be read."""
    (tmp_path / "a.env").write_text("")
    path = tmp_path / "shoal.yaml"
    path.write_text(SHORT)
    assert set(load([path]).fleet.agents) == {"a", "b", "c"}


def test_every_key_has_a_sentence() -> None:
    """In the schema, and so in editors and on the page."""
    for part in parts(SCHEMA):
        for key, value in part.get("properties", {}).items() if part.get("type") == "object" else ():
            assert str(value.get("description", "")).endswith("."), key


def test_the_page_is_fresh() -> None:
    """Run tools/spec_reference.py after a change of the spec."""
    spec = importlib.util.spec_from_file_location("spec_reference", ROOT / "tools" / "spec_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.reference()


def test_the_starter_can_be_used(tmp_path: Path) -> None:
    """`shoal init` writes what `shoal up` takes, and an agent that is Python."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    loaded = load([tmp_path / SPEC_FILE])
    assert loaded.warnings == ()
    agent = loaded.fleet.agents["hello"]
    assert agent.command is not None
    compile(FILES[agent.command[1]], agent.command[1], "exec")
    assert agent.scale.target.concurrency is not None and agent.public is not None


def test_what_is_not_written_is_not_in_the_schema() -> None:
    """The spec's version is stored with a fleet, and nobody's to set."""
    assert issubclass(Document, Model)
    assert "spec_version" not in SCHEMA["properties"]
    assert not any("WrittenAgent" in str(part.get("$ref", "")) for part in parts(SCHEMA))
