"""`${VAR}` in a value, as Compose has it. Pure.

`$VAR` and `${VAR}` are the variable; `${VAR:-text}` is `text` if it is unset or empty, `${VAR-text}` if it is unset;
`${VAR:?why}` and `${VAR?why}` refuse in the same cases; `${VAR:+text}` and `${VAR+text}` are `text` in the other cases,
else empty; `$$` is `$`. The texts may hold variables themselves. A variable that is unset and has no other text is
refused, where Compose goes on with an empty one.

In `command` two moments meet. What has braces is put in when the file is read, as everywhere. What has none (`$PORT`,
`$HOME`) is left as it stands: when a replica starts, `$PORT` and `$SHOAL_...` are put in, and any other `$NAME` reaches
the program as text, for no shell reads it. `${PORT}` and `${SHOAL_...}` are left too, since nobody knows them earlier.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
DEEPEST = 20

Lookup = Callable[[str], tuple[str, str] | None]  # a variable's name to its value and where that came from, if set


class InterpolationError(ValueError):
    """A value can't be put together: `offset` is the character in it, `remedy` what to do."""

    def __init__(self, message: str, offset: int, remedy: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Interpolated:
    """The text with its variables put in, and which they were: pairs of a name and of where its value came from."""

    text: str
    variables: tuple[tuple[str, str], ...]


def is_runtime_variable(name: str) -> bool:
    """Whether only the start of a replica gives the variable its value: `PORT` and `SHOAL_...`."""
    return name == "PORT" or name.startswith("SHOAL_")


def interpolate(text: str, lookup: Lookup, *, command: bool = False) -> Interpolated:
    """`text` with its variables put in; `command` leaves those of the start. Raises InterpolationError."""
    template = _Template(text, lookup, command=command)
    result, end = template.read(0, inside=0)
    assert end == len(text)
    return Interpolated(result, tuple(template.used.items()))


class _Template:
    """One text being read from left to right."""

    def __init__(self, text: str, lookup: Lookup, *, command: bool) -> None:
        self.used: dict[str, str] = {}
        self._text = text
        self._lookup = lookup
        self._command = command

    def read(self, at: int, *, inside: int) -> tuple[str, int]:
        """The text from `at`, up to the brace that closes if `inside` one; and where that was."""
        text, parts, open_braces = self._text, list[str](), 0
        while at < len(text):
            character = text[at]
            if character == "$":
                part, at = self._variable(at, inside=inside)
                parts.append(part)
                continue
            if inside and character == "{":
                open_braces += 1
            elif inside and character == "}":
                if not open_braces:
                    return "".join(parts), at
                open_braces -= 1
            parts.append(character)
            at += 1
        return "".join(parts), at

    def _variable(self, at: int, *, inside: int) -> tuple[str, int]:
        text = self._text
        following = text[at + 1 : at + 2]
        if following == "$":
            return "$", at + 2
        if following == "{":
            return self._braced(at, inside=inside)
        name = _NAME.match(text, at + 1)
        if name is None:
            raise InterpolationError("a $ stands alone", at, "write $$ for a $, or ${NAME} for a variable")
        if self._command:
            return text[at : name.end()], name.end()
        return self._value(name[0], at), name.end()

    def _braced(self, at: int, *, inside: int) -> tuple[str, int]:
        text = self._text
        if inside >= DEEPEST:
            raise InterpolationError(f"variables are nested deeper than {DEEPEST} levels", at)
        name = _NAME.match(text, at + 2)
        if name is None:
            raise InterpolationError("a ${ is followed by no name", at, "write $$ for a $, or ${NAME} for a variable")
        operator = _OPERATOR.match(text, name.end())
        if operator is None:
            return self._bare(name[0], at, name.end())
        # What is not used is read all the same, but what is missing in it is nobody's loss.
        wanted, value = self._choose(name[0], operator[0])
        inner = self if wanted else _Template(text, _anything, command=self._command)
        other, end = inner.read(operator.end(), inside=inside + 1)
        if end >= len(text):
            raise InterpolationError(f"the ${{{name[0]} is not closed", at, "add a }")
        self._refuse_runtime(name[0], at)
        if not wanted:
            return value, end + 1
        if operator[0][-1] == "?":
            raise InterpolationError(f"the variable {name[0]} is missing: {other or 'it is required'}", at)
        return other, end + 1

    def _bare(self, name: str, at: int, end: int) -> tuple[str, int]:
        text = self._text
        if text[end : end + 1] != "}":
            close = text.find("}", end)
            message = (
                f"${{{text[at + 2 : close][:40]}}} is not a variable" if close > 0 else f"the ${{{name} is not closed"
            )
            raise InterpolationError(message, at, "expected ${NAME} or ${NAME:-default}")
        if self._command and is_runtime_variable(name):
            return f"${{{name}}}", end + 1
        return self._value(name, at), end + 1

    def _choose(self, name: str, operator: str) -> tuple[bool, str]:
        """Whether the text after the operator is what counts, and what counts otherwise."""
        found = self._lookup(name)
        present = found is not None and (bool(found[0]) or operator[0] != ":")
        if operator[-1] == "+":
            return present, ""
        if present and found is not None:
            self.used[name] = found[1]
        return not present, found[0] if found else ""

    def _value(self, name: str, at: int) -> str:
        found = self._lookup(name)
        if found is None:
            remedy = f"set it, or write ${{{name}:-default}}"
            if is_runtime_variable(name):
                remedy = "it is known when a replica starts, and can stand in command alone"
            raise InterpolationError(f"the variable {name} is not set", at, remedy)
        self.used[name] = found[1]
        return found[0]

    def _refuse_runtime(self, name: str, at: int) -> None:
        if self._command and is_runtime_variable(name):
            raise InterpolationError(f"{name} is set whenever a replica starts", at, f"write ${name} alone")


def _anything(name: str) -> tuple[str, str]:
    return "", name
