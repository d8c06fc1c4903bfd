"""YAML text as a tree with places. YAML 1.2's scalars, no duplicate keys, merge keys as in Compose, bounded work.

The parser's events are read instead of its nodes: that is three times as fast, and depth costs no stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from shoal.errors import Problem
from shoal.spec.nodes import Block, Entry, Items, Node, Scalar, Spot, dotted

LARGEST_FILE_BYTES = 16 * 2**20
MOST_NODES = 1_000_000  # after aliases are followed, so that a few lines can't become a billion values
DEEPEST = 100

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# YAML 1.2's core schema, but for decimals with leading zeros: YAML 1.1 reads `010` as 8, so here it stays text.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_STANDARD_TAG = "tag:yaml.org,2002:"
_MOST_DIGITS = 40  # more is no quantity of anything here, and turning long digits into a number takes long


class Refused(Exception):
    """Reading can't go on; `problem` says why and where. Collected by `load`, never seen outside of the package."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read: what is in it so far, and the key that waits for its value."""

    spot: Spot
    anchor: str | None
    mapping: bool
    items: list[Node] = field(default_factory=list[Node])
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    key: tuple[str, Spot] | None = None
    merges: list[Node] = field(default_factory=list[Node])


def parse_yaml(text: str, file: str, *, layer: str = "") -> tuple[Node | None, list[Problem]]:
    """The document in `text` (None if there is none) and what is wrong in it that does not keep it from being read.

    Raises Refused where it can't be read any further.
    """
    if len(text) > LARGEST_FILE_BYTES:
        raise Refused(_at(Spot(file, 1, 1), f"the file has {len(text)} characters; expected at most 16 Mi"))
    return _Reader(file, layer).read(text)


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """What YAML 1.2 reads in a scalar without quotes: `no` and `12:30` are text, `0o17` is 15, `~` is nothing."""
    if text in _NULLS:
        return None
    first = text[0]
    if first.isalpha():
        return _TRUTHS.get(text, text)
    if first not in "-+.0123456789" or len(text) > _MOST_DIGITS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


class _Reader:
    """One pass over the events of one text, with the open lists and mappings on a stack of its own."""

    def __init__(self, file: str, layer: str) -> None:
        self._file = file
        self._layer = layer
        self._problems: list[Problem] = []
        self._anchors: dict[str, Node] = {}
        self._sizes: dict[str, int] = {}
        self._stack: list[_Open] = []
        self._count = 0
        self._root: Node | None = None
        self._documents = 0

    def read(self, text: str) -> tuple[Node | None, list[Problem]]:
        try:
            for event in _events(text):
                self._take(event)
        except yaml.reader.ReaderError as error:
            raise Refused(self._unreadable(error, text)) from None
        except yaml.MarkedYAMLError as error:
            raise Refused(self._malformed(error, text)) from None
        return self._root, self._problems

    def _take(self, event: Any) -> None:
        kind = event.__class__
        if kind is yaml.ScalarEvent:
            self._scalar(event)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            self._open(event, mapping=kind is yaml.MappingStartEvent)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._close()
        elif kind is yaml.AliasEvent:
            self._alias(event)
        elif kind is yaml.DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                raise Refused(_at(self._spot(event), "a second document starts here; expected one document a file"))

    def _scalar(self, event: Any) -> None:
        spot = self._spot(event)
        text: str = event.value
        top = self._stack[-1] if self._stack else None
        if top is not None and top.mapping and top.key is None:
            top.key = (text, spot)
            if event.anchor is not None:
                self._remember(event.anchor, Scalar(text, text, spot))
            return
        tag: str | None = event.tag
        plain = event.style is None or event.style == ""
        if tag is None or tag == "!":
            value = resolve_scalar(text) if plain and tag is None else text
        elif tag == f"{_STANDARD_TAG}str":
            value, plain = text, False
        elif tag.startswith(_STANDARD_TAG):
            value = resolve_scalar(text)
        else:
            value = self._unknown_tag(spot, tag)
        self._add(Scalar(text, value, spot, plain), event.anchor)

    def _open(self, event: Any, *, mapping: bool) -> None:
        spot = self._spot(event)
        if event.tag is not None and event.tag != "!" and not event.tag.startswith(_STANDARD_TAG):
            self._unknown_tag(spot, event.tag)
        if len(self._stack) >= DEEPEST:
            raise Refused(_at(spot, f"lists and mappings are nested deeper than {DEEPEST} levels here"))
        top = self._stack[-1] if self._stack else None
        if top is not None and top.mapping and top.key is None:
            raise Refused(_at(spot, "a list or mapping stands where a key was expected"))
        if event.anchor is not None:
            self._anchors.pop(event.anchor, None)
        self._stack.append(_Open(spot, event.anchor, mapping))

    def _close(self) -> None:
        done = self._stack[-1]
        for merged in done.merges:
            self._merge(done, merged)
        self._stack.pop()
        if done.mapping:
            self._add(Block(done.entries, done.spot), done.anchor)
        else:
            self._add(Items(tuple(done.items), done.spot), done.anchor)

    def _alias(self, event: Any) -> None:
        name: str = event.anchor
        node = self._anchors.get(name)
        spot = self._spot(event)
        if node is None:
            raise Refused(_at(spot, f"the alias *{name} has no anchor &{name} that ends before it"))
        top = self._stack[-1] if self._stack else None
        if top is not None and top.mapping and top.key is None:
            if not isinstance(node, Scalar):
                raise Refused(_at(spot, f"the alias *{name} is a list or mapping where a key was expected"))
            top.key = (node.text, spot)
            return
        self._count += self._sizes[name]
        self._add(node, None)

    def _add(self, node: Node, anchor: str | None) -> None:
        self._count += 1
        if self._count > MOST_NODES:
            raise Refused(_at(node.spot, f"with its aliases followed the file has more than {MOST_NODES} values"))
        if anchor is not None:
            self._remember(anchor, node)
        if not self._stack:
            self._root = node
            return
        top = self._stack[-1]
        if not top.mapping:
            top.items.append(node)
            return
        assert top.key is not None
        key, spot = top.key
        top.key = None
        if key == "<<":
            top.merges.append(node)
        elif key in top.entries:
            first = top.entries[key].spot
            message = f"the key stands here a second time; it stands at {first.line}:{first.column} too"
            self._problems.append(_at(spot, message, self._path(key), "keep one of them"))
        else:
            top.entries[key] = Entry(spot, node)

    def _path(self, last: str) -> str:
        """The dotted path of a key of the innermost mapping."""
        above = (level.key[0] if level.key else len(level.items) for level in self._stack[:-1])
        return dotted((*above, last))

    def _remember(self, anchor: str, node: Node) -> None:
        self._anchors[anchor] = node
        self._sizes[anchor] = _size(node)

    def _merge(self, into: _Open, node: Node) -> None:
        """`<<`: what is written wins, then the earlier of several mappings."""
        for source in node.items if isinstance(node, Items) else (node,):
            if not isinstance(source, Block):
                self._problems.append(
                    _at(source.spot, "<< merges what is no mapping; expected an alias of one", self._path("<<"))
                )
                continue
            self._count += len(source.entries)
            for key, entry in source.entries.items():
                into.entries.setdefault(key, entry)

    def _unknown_tag(self, spot: Spot, tag: str) -> None:
        remedy = "null deletes and lists replace, without a tag" if tag in ("!reset", "!override") else "remove it"
        problem = _at(spot, f"the tag {tag} is not known here", remedy=remedy)
        self._problems.append(problem)

    def _spot(self, event: Any) -> Spot:
        mark = event.start_mark
        return Spot(self._file, mark.line + 1, mark.column + 1, self._layer)

    def _malformed(self, error: yaml.MarkedYAMLError, text: str) -> Problem:
        mark = error.problem_mark or error.context_mark
        spot = Spot(self._file, mark.line + 1, mark.column + 1) if mark else Spot(self._file, 1, 1)
        context = f" {error.context}" if error.context else ""
        line = "".join(text.splitlines()[spot.line - 1 : spot.line])
        if "\t" in line[: len(line) - len(line.lstrip())] or line[spot.column - 1 : spot.column] == "\t":
            return _at(spot, "a tab can't indent YAML", remedy="write spaces instead")
        remedy = "${...} needs quotes within brackets" if "flow" in context and "${" in line else ""
        return _at(spot, f"this is not YAML: {error.problem or 'malformed'}{context}", remedy=remedy)

    def _unreadable(self, error: yaml.reader.ReaderError, text: str) -> Problem:
        # The C reader counts in bytes, the Python one in characters: the text itself tells where it is.
        for index, character in enumerate(text):
            if not _printable(character):
                before = text[:index]
                spot = Spot(self._file, before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)
                message = f"the character U+{ord(character):04X} can't stand in YAML"
                return _at(spot, message, remedy="write it as an escape, in double quotes")
        return _at(Spot(self._file, 1, 1), f"this is not YAML: {error.reason}")


def _events(text: str) -> Iterator[Any]:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.parse(text, Loader=loader)


def _printable(character: str) -> bool:
    code = ord(character)
    return (
        character in "\t\n\r\x85"
        or 0x20 <= code <= 0x7E
        or 0xA0 <= code <= 0xD7FF
        or (0xE000 <= code <= 0xFFFD and code != 0xFEFF)
        or code >= 0x10000
    )


def _size(node: Node) -> int:
    if isinstance(node, Scalar):
        return 1
    if isinstance(node, Items):
        return 1 + sum(_size(item) for item in node.items)
    return 1 + sum(_size(entry.node) for entry in node.entries.values())


def _at(spot: Spot, message: str, path: str = "", remedy: str = "") -> Problem:
    return Problem(spot.place, path, message, remedy)
