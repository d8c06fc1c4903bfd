"""Files of variables (`.env`, `env_file`) as Compose reads them. Pure.

`NAME=value`, with or without `export` before it; `#` begins a comment at the start of a line and after a space. Text in
single quotes stands as it is; in double quotes `\\n`, `\\t`, `\\r`, `\\"`, `\\\\` and `\\$` mean what they mean in a
shell; quoted text may go over several lines. Variables are put in, but not into single quotes: those of the process
first, then those from further up in the file. A `NAME` alone is passed on from the process, if it is set there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shoal.errors import Problem
from shoal.spec.interpolation import InterpolationError, interpolate
from shoal.spec.nodes import Scalar, Spot

_START = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?:(=)[ \t]*|(?=[\r\n#]|$))")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_REST = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|$)")


def parse_variables(
    text: str, file: str, environment: Mapping[str, str], problems: list[Problem], *, layer: str = ""
) -> dict[str, Scalar]:
    """The variables in `text`, each with its place; what is wrong is added to `problems`."""
    found: dict[str, Scalar] = {}
    text = text.replace("\r\n", "\n")
    at, line = 0, 1
    while at < len(text):
        end, variable = _read_one(text, at, Spot(file, line, 1, layer), environment, found, problems)
        if variable is not None:
            found[variable[0]] = variable[1]
        line += text.count("\n", at, end)
        at = end
    return found


def _read_one(
    text: str,
    at: int,
    spot: Spot,
    environment: Mapping[str, str],
    above: Mapping[str, Scalar],
    problems: list[Problem],
) -> tuple[int, tuple[str, Scalar] | None]:
    """The variable that starts in the line at `at`, if there is one, and where the line after it starts."""
    newline = text.find("\n", at)
    next_line = len(text) if newline < 0 else newline + 1
    content = text[at:next_line].strip()
    if not content or content.startswith("#"):
        return next_line, None
    start = _START.match(text, at)
    if start is None:
        problems.append(Problem(spot.place, "", f"found {content[:40]!r}; expected NAME=value"))
        return next_line, None
    name = start[1]
    if not start[2]:
        passed = environment.get(name)
        return next_line, None if passed is None else (name, Scalar(passed, passed, spot))
    end, raw, quote = _value(text, start.end(), next_line)
    if end is None:
        problems.append(Problem(spot.place, name, f"the quote {quote} is not closed"))
        return len(text), None
    try:
        value = raw if quote == "'" else _put_in(raw, environment, above)
    except InterpolationError as error:
        problems.append(Problem(spot.place, name, str(error), error.remedy or "single quotes keep a $ as it is"))
        value = raw
    return end, (name, Scalar(value, value, spot))


def _value(text: str, at: int, next_line: int) -> tuple[int | None, str, str]:
    """Where the line after the value starts (None: a quote is not closed), the value, and its quote."""
    quote = text[at : at + 1]
    if quote not in ("'", '"') or not quote:
        raw = text[at:next_line].rstrip("\n")
        comment = re.search(r"(?:^|[ \t])#", raw)
        return next_line, (raw[: comment.start()] if comment else raw).strip(), ""
    parts: list[str] = []
    position = at + 1
    while position < len(text) and text[position] != quote:
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            position += 1
            character = _unescaped(text[position], quote)
        parts.append(character)
        position += 1
    if position >= len(text):
        return None, "", quote
    rest = _REST.match(text, position + 1)
    following = text.find("\n", position)
    return (rest.end() if rest else len(text) if following < 0 else following + 1), "".join(parts), quote


def _unescaped(character: str, quote: str) -> str:
    if quote == "'":
        return "'" if character == "'" else f"\\{character}"
    if character == "$":
        return "$$"  # a single $ once variables are put in
    return _ESCAPES.get(character, f"\\{character}")


def _put_in(raw: str, environment: Mapping[str, str], above: Mapping[str, Scalar]) -> str:
    def lookup(name: str) -> tuple[str, str] | None:
        if name in environment:
            return environment[name], "environment"
        scalar = above.get(name)
        return (scalar.text, scalar.spot.file) if scalar else None

    return interpolate(raw, lookup).text if "$" in raw else raw
