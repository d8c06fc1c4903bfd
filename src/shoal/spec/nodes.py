"""What a file says, as a tree that knows where each part of it stands. Values only: read, merged, never changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from shoal.errors import Place

Key = str | int
Loc = tuple[Key, ...]  # a way into the document: keys, and indexes of lists


class SettingPlace(Place):
    """A place on the command line: `file` is the whole `--set path=value`, which is short enough to find it in."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.file


class Spot(NamedTuple):
    """Where something stands. Lines and columns count from 1; `layer` says what brought the file in, if not `-f`.

    `variables` are those that were put into the value: pairs of a name and of where its value came from.
    """

    file: str
    line: int
    column: int
    layer: str = ""
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> Place:
        kind = SettingPlace if self.file.startswith("--set ") else Place
        return kind(self.file, self.line, self.column)


class Scalar(NamedTuple):
    """One value. `text` is what was written, `value` what YAML 1.2 reads in it: text is never lost to a number."""

    text: str
    value: str | int | float | bool | None
    spot: Spot
    plain: bool = False  # written without quotes, so that what is put into it is read again


class Items(NamedTuple):
    """A list."""

    items: tuple[Node, ...]
    spot: Spot


class Entry(NamedTuple):
    """A key with its place, and what it holds."""

    spot: Spot
    node: Node


class Block(NamedTuple):
    """A mapping, in the order of the file."""

    entries: dict[str, Entry]
    spot: Spot


Node = Scalar | Items | Block


def plain_data(node: Node) -> object:
    """The tree as dicts, lists and scalars."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return [plain_data(item) for item in node.items]
    return block_data(node)


def block_data(block: Block) -> dict[str, object]:
    """A mapping of the tree as a dict."""
    return {key: plain_data(entry.node) for key, entry in block.entries.items()}


def child(node: Node, key: Key) -> Node | None:
    """What `node` holds at `key`, or None."""
    if isinstance(node, Block):
        entry = node.entries.get(str(key))
        return entry.node if entry else None
    if isinstance(node, Items) and isinstance(key, int) and 0 <= key < len(node.items):
        return node.items[key]
    return None


def nearest(node: Node, loc: Iterable[Key]) -> tuple[Node, bool]:
    """The node at `loc`, or where there is none the last on the way to it; and whether it is the one asked for."""
    for key in loc:
        below = child(node, key)
        if below is None:
            return node, False
        node = below
    return node, True


def spot_of(node: Node, loc: Sequence[Key], *, key: bool = False) -> Spot:
    """The place of what `loc` leads to, or of what would hold it; with `key` the place of its key."""
    if key and loc:
        holder, found = nearest(node, loc[:-1])
        if found and isinstance(holder, Block) and str(loc[-1]) in holder.entries:
            return holder.entries[str(loc[-1])].spot
    return nearest(node, loc)[0].spot


def dotted(loc: Iterable[Key]) -> str:
    """`("agents", "a", "secrets", 0)` as `agents.a.secrets[0]`; a key with a dot in it is quoted."""
    text = ""
    for key in loc:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            written = f'"{key}"' if "." in key or "[" in key or not key else key
            text += f".{written}" if text else written
    return text
