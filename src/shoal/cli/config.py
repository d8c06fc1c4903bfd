"""`shoal config`: the fleet as Shoal understands it, and where each value came from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import click

from shoal.cli.options import SPEC_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import emit, say, to_yaml

if TYPE_CHECKING:
    from shoal.spec import Loaded

_INDENT = "  "
_COMMENT_COLUMN = 44
# What a YAML value may be written as without quotes on one line, whatever reads it.
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@click.command(short_help="Show the fleet as Shoal understands it.")
@click.option("--origin", is_flag=True, help="Say beside each value which file and line, or default, it came from.")
@decorate(SPEC_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def config(common: Common, origin: bool) -> None:
    """Show the fleet as Shoal understands it.

    Overlays are laid over each other, variables put in, shorthands and defaults spelled out. What is shown is a
    shoal.yaml itself, of the very same fleet. Values of secrets are no part of a fleet; those of variables are shown,
    with a warning where a secret comes from one.
    """
    from shoal.spec.writable import escaped, writable_document

    loaded = common.load()
    for warning in loaded.warnings:
        say(f"warning: {warning}", fg="yellow")
    document = writable_document(loaded.fleet)
    if common.output == "json" and origin:
        emit(_with_origins(loaded, document), "json")
        return
    document = escaped(document)
    if common.output == "json":
        emit(document, "json")
    elif origin:
        click.echo("\n".join(_annotated(loaded, document, (), "")))
    else:
        click.echo(to_yaml(document), nl=False)


def _with_origins(loaded: Loaded, document: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"path": path, "value": value, "origin": str(origin)} for path, value, origin in loaded.origins.items(document)
    ]


def _annotated(loaded: Loaded, value: object, loc: tuple[str | int, ...], indent: str) -> list[str]:
    """The document as YAML in blocks, each single value with its origin as a comment."""
    lines: list[str] = []
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            lines += _entry(loaded, inner, (*loc, key), indent, f"{_key(key)}:")
    else:
        for index, inner in enumerate(cast("list[object]", value)):
            lines += _entry(loaded, inner, (*loc, index), indent, "-")
    return lines


def _entry(loaded: Loaded, value: object, loc: tuple[str | int, ...], indent: str, head: str) -> list[str]:
    if isinstance(value, (dict, list)) and value:
        if head == "-" and isinstance(value, dict):
            first, *others = _annotated(loaded, cast("dict[str, object]", value), loc, indent + _INDENT)
            return [f"{indent}- {first.lstrip()}", *others]
        below = _annotated(loaded, cast("dict[str, object] | list[object]", value), loc, indent + _INDENT)
        return [f"{indent}{head}", *below]
    line = f"{indent}{head} {_scalar(cast(object, value))}"
    comment = click.style(f"# {loaded.origins.of(loc)}", dim=True)
    return [f"{line:<{_COMMENT_COLUMN}} {comment}"]


def _scalar(value: object) -> str:
    """A value on one line: JSON is YAML, but for text, which reads better without quotes."""
    import json

    import yaml

    if isinstance(value, str):
        text = yaml.safe_dump(value, width=10**6, allow_unicode=True).removesuffix("\n").removesuffix("\n...")
        return text if text.isprintable() else yaml.safe_dump(value, width=10**6, default_style='"').strip()
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else _scalar(key)
