"""Writes docs/spec-reference.md from the models, so that the page can't say anything else than the program does.

Run it after a change of the spec: `python tools/spec_reference.py`. A test fails while the page is stale.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from shoal.spec.block import Model
from shoal.spec.values import Argv, Assignments, CpuCores, DurationS, MemoryBytes, Number, Percent, Share
from shoal.spec.written import NOT_WRITTEN, Document
from shoal.units import format_duration

PAGE = Path(__file__).parent.parent / "docs" / "spec-reference.md"
INTRODUCTION = """\
# The spec, key by key

Made from the program itself by `tools/spec_reference.py`; don't edit it.

- A duration is a number with a unit (`250ms`, `90s`, `1h30m`), or a bare number of seconds. Memory is an amount such as
  `256Mi`; CPU is `500m` or `2`.
- `${VAR}`, `${VAR:-default}`, `${VAR:?message}` and `${VAR:+other}` are put in as in Compose, from the process and from
  `.env` beside the first file; a variable that is not set and has no default is an error. `$$` is a `$`. In `command`,
  `$PORT` and `$SHOAL_...` are put in when a replica starts.
- Keys that start with `x-` are ignored wherever a key of this page could stand; anchors, aliases and `<<` work.
- YAML is read as YAML 1.2: `no` is text, `010` is text, the same key twice is an error.
- Files given by several `-f`, an environment chosen by `-e` and settings by `--set` are laid over each other: maps
  merge, lists replace, `null` deletes.
"""
SPOKEN: Mapping[Any, str] = {
    Number: "number", DurationS: "duration", MemoryBytes: "memory", CpuCores: "CPU", Percent: "percentage",
    Share: "whole number or percentage",
    Argv: "text or list of texts", Assignments: "map of texts, or list of `NAME=value`",
}  # fmt: skip
SPOKEN_BY_SHAPE: Mapping[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false"}
DURATIONS = ("interval", "timeout", "start_period", "stop_grace_period", "ack_wait", "min_ready_time")


def reference() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(line for model, title in sections() for line in section(model, title))])


def sections() -> Iterator[tuple[type[Model], str]]:
    """The models in the order in which one meets them, each once, with the path to its first place."""
    seen: set[type[Model]] = {Document}
    queue: list[tuple[type[Model], str]] = [(Document, "")]
    while queue:
        model, path = queue.pop(0)
        yield model, path
        for key, info in fields(model):
            for below, suffix in models_in(info.annotation):
                if below not in seen:
                    seen.add(below)
                    queue.append((below, f"{path}.{key}{suffix}".lstrip(".")))


def fields(model: type[Model]) -> Iterator[tuple[str, FieldInfo]]:
    """The keys that people write, with what is known of them."""
    for name, info in model.model_fields.items():
        if name not in NOT_WRITTEN:
            yield info.alias or name, info


def models_in(annotation: Any) -> Iterator[tuple[type[Model], str]]:
    """The models that a value may hold, with what the path to them has beside the key."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation, ""
    suffix = "[]" if get_origin(annotation) is tuple else ".NAME"
    plain = get_origin(annotation) in (Union, types.UnionType)
    for argument in get_args(annotation):
        for model, below in models_in(argument):
            yield model, below if plain else suffix + below


def section(model: type[Model], path: str) -> Iterator[str]:
    """A heading, what the model is, and a row a key."""
    yield f"\n## {f'`{path}`' if path else 'The file'}\n"
    yield " ".join((model.__doc__ or "").split())
    yield "\n| key | value | default | meaning |\n|---|---|---|---|"
    for key, info in fields(model):
        yield f"| `{key}` | {spoken(info)} | {default_of(key, info)} | {escaped(info.description or '')} |"


def spoken(info: FieldInfo) -> str:
    """What may stand there."""
    return escaped(spoken_type(info.rebuild_annotation()))


def spoken_type(annotation: Any) -> str:
    for known, said in SPOKEN.items():
        if annotation == known:
            return said
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(spoken_type(each) for each in arguments if each is not type(None)))
    if hasattr(annotation, "__metadata__"):
        marks = annotation.__metadata__
        for known, said in SPOKEN.items():
            if arguments[0] == known.__origin__ and set(map(id, known.__metadata__)) <= set(map(id, marks)):
                return said
        return spoken_type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        inner = spoken_type(arguments[0])
        return f"list of {inner}s" if inner in ("text", "whole number") else f"list of {inner}"
    if origin is not None:
        inner = spoken_type(arguments[1])
        return "map of texts" if inner == "text" else f"map of names to {inner}"
    if isinstance(annotation, type) and issubclass(annotation, Model):
        short = annotation.shorthand
        block = f"[{annotation.__name__.removeprefix('Written').lower()}](#{anchor(annotation)})"
        return f"{block}, or `{'` and `'.join(short)}`" if short else block
    return SPOKEN_BY_SHAPE[annotation]


def anchor(model: type[Model]) -> str:
    """GitHub's anchor of the model's heading."""
    path = next(path for each, path in sections() if each is model)
    return "".join(character for character in path.lower() if character.isalnum() or character in "-_") or "the-file"


def default_of(key: str, info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default
    if value is None or value in ((), "") or isinstance(value, Model) or info.default_factory is not None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{format_duration(value)}`" if key in DURATIONS else f"`{value}`"


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(reference(), encoding="utf-8")
