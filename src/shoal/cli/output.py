"""How answers look: aligned tables that fit a narrow terminal, JSON and YAML of the same values, ages and quantities.

Colour never carries a meaning alone: the word beside it says the same.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TextIO, cast

import click

from shoal.units import format_duration, format_memory

STATE_COLOURS = {"ok": "green", "progressing": "cyan", "asleep": "blue", "degraded": "yellow", "failed": "red"}
_AGENT_COLOURS = (
    "cyan", "green", "yellow", "magenta", "blue",
    "bright_cyan", "bright_green", "bright_yellow", "bright_magenta", "bright_blue",
)  # fmt: skip
_GAP = "  "
_LEAST_WRAPPED = 24  # a column narrower than this reads worse than a line of its own
NONE = "-"


@dataclass(frozen=True, slots=True)
class Cell:
    """A text and its colour."""

    text: str
    colour: str | None = None
    bold: bool = False

    def render(self, width: int = 0, *, right: bool = False) -> str:
        """The text, padded first and coloured then."""
        padded = self.text.rjust(width) if right else self.text.ljust(width)
        if self.colour is None and not self.bold:
            return padded
        return click.style(padded, fg=self.colour, bold=self.bold or None)


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; numbers stand to the right."""

    heading: str
    right: bool = False


def render_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], width: int | None = None) -> str:
    """The table as text. Its last column takes what is left of `width`: it is wrapped there or, where that is too
    little, put on lines of its own below its row."""
    cells = [[each if isinstance(each, Cell) else Cell(each) for each in row] for row in rows]
    widths = [
        max([len(column.heading), *(len(row[index].text) for row in cells)]) for index, column in enumerate(columns)
    ]
    *fixed, _last = widths
    used = sum(fixed) + len(_GAP) * len(fixed)
    room = None if width is None else width - used
    below = room is not None and room < min(_LEAST_WRAPPED, widths[-1])
    shown = columns[:-1] if below else columns
    lines = [_render_row([Cell(column.heading, bold=True) for column in shown], shown, widths)]
    for row in cells:
        lines += _row_below(row, columns, widths, width or 0) if below else _row_wrapped(row, columns, widths, room)
    return "\n".join(lines)


def _row_wrapped(row: list[Cell], columns: Sequence[Column], widths: list[int], room: int | None) -> list[str]:
    last = row[-1]
    if room is None or len(last.text) <= room:
        return [_render_row(row, columns, widths)]
    first, *others = textwrap.wrap(last.text, max(room, 1))
    margin = " " * (sum(widths[:-1]) + len(_GAP) * (len(widths) - 1))
    head = _render_row([*row[:-1], Cell(first, last.colour)], columns, widths)
    return [head, *(margin + Cell(other, last.colour).render() for other in others)]


def _row_below(row: list[Cell], columns: Sequence[Column], widths: list[int], width: int) -> list[str]:
    head = _render_row(row[:-1], columns[:-1], widths)
    margin = "    "
    texts = textwrap.wrap(row[-1].text, max(width - len(margin), _LEAST_WRAPPED))
    return [head, *(margin + Cell(text, row[-1].colour).render() for text in texts if row[-1].text != NONE)]


def _render_row(row: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int]) -> str:
    *some, last = zip(row, columns, widths, strict=False)
    parts = [cell.render(width, right=column.right) for cell, column, width in some]
    cell, column, width = last
    parts.append(cell.render(width, right=True) if column.right else cell.render())
    return _GAP.join(parts)


def terminal_width(stream: TextIO | None = None) -> int | None:
    """The columns of the terminal that a stream (stdout) is; `None` where it is none, and nothing need be wrapped."""
    shown = sys.stdout if stream is None else stream
    if shown is None or not shown.isatty():  # pyright: ignore[reportUnnecessaryComparison]  # None without a console
        return None
    try:
        return os.get_terminal_size(shown.fileno()).columns or 80
    except OSError:
        return 80


def as_plain(value: Any) -> Any:
    """Views, and lists of them, as what JSON and YAML know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_plain(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # any dict
    if isinstance(value, (list, tuple)):
        return [as_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]  # any sequence
    return value


def emit(value: Any, form: str) -> None:
    """Data on stdout as `json` or `yaml`."""
    if form == "json":
        click.echo(json.dumps(as_plain(value), indent=2, ensure_ascii=False))
    else:
        click.echo(to_yaml(as_plain(value)), nl=False)


def emit_line(value: Any) -> None:
    """One value of a stream: a JSON object a line."""
    click.echo(json.dumps(as_plain(value), ensure_ascii=False))


def to_yaml(value: Any) -> str:
    """YAML in the order of the values."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def represent_text(self, text: str) -> yaml.ScalarNode:
            # Unquoted, PyYAML writes these as they are, and reads them as a line's end.
            style = '"' if any(end in text for end in "\x85\u2028\u2029") else None
            return cast(
                "yaml.ScalarNode", cast("Any", self).represent_scalar("tag:yaml.org,2002:str", text, style=style)
            )

    Dumper.add_representer(str, Dumper.represent_text)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def say(message: str, **style: Any) -> None:
    """Progress, on stderr."""
    click.echo(click.style(message, **style) if style else message, err=True)


def count_of(number: int, what: str) -> str:
    """`1 agent`, `2 agents`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def agent_colour(name: str) -> str:
    """The same colour for an agent in every command and on every machine."""
    return _AGENT_COLOURS[zlib.crc32(name.encode()) % len(_AGENT_COLOURS)]


def format_number(value: float | None) -> str:
    """At most three digits that matter."""
    if value is None:
        return NONE
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_seconds(value: float | None) -> str:
    """A latency: milliseconds below a second."""
    if value is None:
        return NONE
    if value < 0.0095:
        return f"{value * 1000:.1f}ms"
    return f"{value * 1000:.0f}ms" if value < 1 else f"{value:.2f}s"


def format_bytes(value: int | None) -> str:
    """Memory, or nothing."""
    return NONE if value is None else format_memory(value)


def format_span(seconds: float) -> str:
    """A duration to a precision that is of use: `4s`, `5m`, `3h20m`, `2d4h`."""
    whole = max(0, int(seconds))
    for size, step in ((86400 * 2, 3600), (3600, 60), (300, 60)):
        if whole >= size:
            return format_duration(whole - whole % step)
    return format_duration(whole)


def format_ago(at: float | None, now: float) -> str:
    """`3m ago`."""
    return NONE if at is None else f"{format_span(now - at)} ago"


def format_moment(at: float) -> str:
    """Local time, with the day where it isn't today."""
    moment = datetime.fromtimestamp(at).astimezone()
    today = datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%Y-%m-%d %H:%M:%S")
