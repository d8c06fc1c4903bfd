"""The JSON Schema of what people write, made from the models. It accepts the shorthands and `${VAR}` in any place."""

from __future__ import annotations

import json
from typing import Any, cast

from shoal.spec.written import NOT_WRITTEN, Document

JsonSchema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE: JsonSchema = {"type": "string", "pattern": r"\$"}
# What pydantic calls a bound that it checks itself.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_SIMPLE = ("integer", "number", "boolean")


def json_schema() -> JsonSchema:
    """The schema of a spec file, draft 2020-12. Overlays are accepted as well, but for `fleet` and `agents`, which the
    schema wants to be there."""
    raw = Document.model_json_schema(by_alias=True, mode="validation")
    definitions = {name: _finished(part) for name, part in cast("JsonSchema", raw.pop("$defs")).items()}
    root = _finished(raw)
    schema = {"$schema": DIALECT, "title": "A fleet of agents", **root, "$defs": dict(sorted(definitions.items()))}
    return json.loads(json.dumps(schema).replace("WrittenAgent", "Agent"))


def _finished(schema: Any) -> Any:
    """A part of the schema as people may write it, all the way down."""
    if isinstance(schema, list):
        return [_finished(part) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    block = {_BOUNDS.get(key, key): value for key, value in cast("JsonSchema", schema).items()}
    block.pop("title", None)
    if block.get("default") is None or isinstance(block["default"], (dict, list)):
        block.pop("default", None)  # a block's default says less than the defaults of its keys
    if "properties" in block:
        return _finished_block(block)
    for key in ("anyOf", "items", "additionalProperties"):
        if key in block:
            block[key] = _finished(block[key])
    below = block.get("additionalProperties")
    if isinstance(below, dict) and "$ref" in below:
        block["additionalProperties"] = _with_null(cast("JsonSchema", below))
    return _with_variable(block)


def _finished_block(block: JsonSchema) -> JsonSchema:
    """A mapping with keys of the spec: null takes a key away, keys with `x-` are free."""
    properties: JsonSchema = {}
    for name, value in block["properties"].items():
        if name not in NOT_WRITTEN:
            finished = _finished(value)
            properties[name] = finished if name in block.get("required", ()) else _with_null(finished)
    return {
        **{key: value for key, value in block.items() if key != "default"},
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }


def _with_variable(schema: JsonSchema) -> JsonSchema:
    """A value that is no text may be written as a variable; a text that has a pattern or choices too."""
    kind = schema.get("type")
    bound = kind == "string" and ("pattern" in schema or "enum" in schema or "const" in schema or "maxLength" in schema)
    if schema == _VARIABLE or not (bound or kind in _SIMPLE):
        return schema
    outside = {key: schema[key] for key in ("description", "default") if key in schema}
    inside = {key: value for key, value in schema.items() if key not in outside}
    return {**outside, "anyOf": [inside, dict(_VARIABLE)]}


def _with_null(schema: JsonSchema) -> JsonSchema:
    kinds = cast("list[JsonSchema]", schema.get("anyOf", []))
    if {"type": "null"} in kinds:
        return schema
    outside = {key: schema[key] for key in ("description", "default") if key in schema}
    inside = {key: value for key, value in schema.items() if key not in outside}
    choices = inside["anyOf"] if inside.keys() == {"anyOf"} else [inside]
    return {**outside, "anyOf": [*choices, {"type": "null"}]}
