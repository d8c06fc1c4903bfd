"""A page of the documentation as what a reader would type, file by file and command by command.

The conventions of the pages:

- A fence whose first line is a comment with a file name (`# shoal.yaml`) is that file, written where the reader is.
- A ```console fence is typed: `$ ` begins a command, what follows is what it shows. `...` stands for anything, lines
  included; other text must be shown as it is, spaces aside, with anything before and after it.
- A command that shows a line `error: ...` or `6 errors` must fail; every other one must succeed.
- A command that only looks (`shoal status`, `curl`, ...) may be typed again until it shows what the page says: things
  take their time, and readers look twice too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"^# ([\w./-]+\.[a-z]+)\n")
_LOOKS = re.compile(r"(shoal (status|explain|events|logs|queue (ls|peek)|doctor)|curl -s http|cat|ls)\b")


@dataclass(frozen=True, slots=True)
class File:
    """A file that the reader writes."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A line that the reader types, and what the page says that it shows."""

    line: str
    shown: str

    @property
    def fails(self) -> bool:
        """Whether the page shows an error."""
        return re.search(r"^error:|^\d+ errors?$", self.shown, re.MULTILINE) is not None

    @property
    def looks(self) -> bool:
        """Whether typing it again changes nothing."""
        return _LOOKS.match(self.line) is not None and not self.fails

    def agrees(self, output: str) -> bool:
        """Whether the output is what the page shows."""
        pieces = re.split(r"\.\.\.", _plain(self.shown))
        return re.search(".*".join(re.escape(piece.strip()) for piece in pieces), _plain(output), re.DOTALL) is not None


Step = File | Command


def read_steps(page: Path) -> Iterator[Step]:
    """The page's files and commands, in its order."""
    for language, content in _FENCE.findall(page.read_text(encoding="utf-8")):
        named = _FILE_NAME.match(content)
        if language == "console":
            yield from _commands(content)
        elif named:
            yield File(named[1], content)


def _commands(content: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        yield Command(line, shown.rstrip("\n"))


def _plain(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines())
