"""Layers of one spec: maps merge, lists replace, null deletes. Pure, on trees, so that every value keeps its place."""

from __future__ import annotations

import re
from operator import is_ as _is

from shoal.errors import Problem
from shoal.spec.nodes import Block, Entry, Items, Node, Scalar, Spot
from shoal.spec.reading import Refused, parse_yaml

_STEP = re.compile(r'(?:^|\.)(?:"([^"]*)"|([^."\[\]=]+))')


def merge(lower: Node | None, upper: Node) -> Node:
    """`upper` over `lower`."""
    if not isinstance(lower, Block) or not isinstance(upper, Block):
        return upper
    entries = dict(lower.entries)
    for key, entry in upper.entries.items():
        below = entries.get(key)
        if below is None:
            entries[key] = entry
        elif _is_null(entry.node):
            del entries[key]
        else:
            entries[key] = Entry(entry.spot, merge(below.node, entry.node))
    return Block(entries, lower.spot)


def without_nulls(node: Node, *, keep: tuple[str, ...] = ()) -> Node:
    """What stays null has nothing to delete: it counts as not written. `keep`: maps by name whose entries are kept as
    empty blocks, for a name alone says enough there (`queues: {tasks: }`)."""
    if isinstance(node, Items):
        items = tuple([without_nulls(item) for item in node.items])
        return node if all(map(_is, items, node.items)) else Items(items, node.spot)
    if not isinstance(node, Block):
        return node
    entries: dict[str, Entry] = {}
    changed = False
    for key, entry in node.entries.items():
        below = entry.node
        if isinstance(below, Scalar):
            if below.value is None:
                changed = True
            else:
                entries[key] = entry
            continue
        if key in keep and isinstance(below, Block):
            below = Block({name: _block_if_null(inner) for name, inner in below.entries.items()}, below.spot)
        below = without_nulls(below)
        changed = changed or below is not entry.node
        entries[key] = entry if below is entry.node else Entry(entry.spot, below)
    return Block(entries, node.spot) if changed else node


def parse_setting(text: str) -> Node:
    """`agents.x.scale.max=3` as a tree. The value is YAML; nothing after the `=` is empty text. Raises Refused."""
    spot = Spot(f"--set {text}", 1, 1)
    path, equals, written = text.partition("=")
    if not equals:
        raise Refused(Problem(spot.place, path, "found no =; expected path=value, such as agents.a.scale.max=3"))
    if "[" in path:
        raise Refused(Problem(spot.place, path, "a list is replaced whole", "write path=[a, b]"))
    keys = _keys(path, spot)
    value, problems = parse_yaml(written, spot.file)
    if problems:
        raise Refused(problems[0])
    node: Node = value if value is not None else Scalar("", "", spot)
    for key in reversed(keys):
        node = Block({key: Entry(spot, node)}, spot)
    return node


def _keys(path: str, spot: Spot) -> list[str]:
    keys: list[str] = []
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            break
        keys.append(step[1] if step[1] is not None else step[2])
        at = step.end()
    if at < len(path) or not keys:
        raise Refused(Problem(spot.place, path, "this is not a path; expected keys with dots between them"))
    return keys


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _block_if_null(entry: Entry) -> Entry:
    return Entry(entry.spot, Block({}, entry.node.spot)) if _is_null(entry.node) else entry
