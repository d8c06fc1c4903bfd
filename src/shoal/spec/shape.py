"""Brings a tree into the one form that trees are merged in: shorthands spelled out, `x-` keys gone, text as written.

What may stand where is taken from the models, so there is one list of keys. Values are judged later, when they are
merged; here only keys are, because here it is known which file they are from.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from shoal.errors import Problem
from shoal.spec.block import Model
from shoal.spec.nodes import Block, Entry, Items, Loc, Node, Scalar, dotted
from shoal.spec.suggestions import suggest_key
from shoal.spec.values import FromAssignments, shown
from shoal.spec.written import NOT_WRITTEN, Document

Interpolate = Callable[[Scalar, Loc, bool], Scalar]  # a scalar, where it stands, whether that is in a command


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value. `text`: what is written is taken as it stands, be it a number or not."""

    text: bool
    command: bool = False


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; `bare` allows a single value in its place."""

    item: Shape
    bare: bool = False


@dataclass(frozen=True, slots=True)
class MapOf:
    """Keys that people choose. `assignments`: a list of `NAME=value` will do as well."""

    value: Shape
    assignments: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """Keys that the spec gives."""

    model: type[Model]
    fields: Mapping[str, Shape]

    def at(self, loc: Loc) -> Shape:
        """The shape of what stands at `loc`. Raises KeyError where nothing may."""
        shape: Shape = self
        for key in loc:
            if isinstance(shape, Fields):
                shape = shape.fields[str(key)]
            elif isinstance(shape, MapOf):
                shape = shape.value
            elif isinstance(shape, ListOf):
                shape = shape.item
            else:
                raise KeyError(key)
        return shape


Shape = Leaf | ListOf | MapOf | Fields


@cache
def document_shape() -> Fields:
    """The shape of a whole file."""
    shape = _shape_of(Document, (), "")
    assert isinstance(shape, Fields)
    return shape


def _shape_of(annotation: Any, metadata: tuple[Any, ...], key: str) -> Shape:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        assert issubclass(annotation, Model)
        fields = {
            info.alias or name: _shape_of(info.annotation, _marks(info.metadata), info.alias or name)
            for name, info in annotation.model_fields.items()
            if name not in NOT_WRITTEN
        }
        return Fields(annotation, fields)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shape_of(arguments[0], _marks(arguments[1:]), key)
    if origin is Union or origin is types.UnionType:
        kinds = [_shape_of(argument, metadata, key) for argument in arguments if argument is not type(None)]
        return kinds[0] if len(kinds) == 1 else ListOf(Leaf(text=True), bare=True)
    if origin is tuple:
        command = key == "command"
        return ListOf(Leaf(text=True, command=True) if command else _shape_of(arguments[0], (), key), bare=command)
    if origin is not None and origin is not Literal:
        assert issubclass(origin, Mapping)
        return MapOf(_shape_of(arguments[1], (), key), any(isinstance(mark, FromAssignments) for mark in metadata))
    return Leaf(text=annotation is str or origin is Literal)


def _marks(metadata: Any) -> tuple[Any, ...]:
    return tuple(mark for mark in metadata if isinstance(mark, FromAssignments))


class Shaper:
    """Brings trees of one load into form. `problems` collects what is found; `interpolate` None leaves variables."""

    def __init__(self, problems: list[Problem], interpolate: Interpolate | None) -> None:
        self._problems = problems
        self._interpolate = interpolate

    def shape(self, node: Node, shape: Shape, loc: Loc = ()) -> Node:
        if isinstance(shape, Fields):
            return self._fields(node, shape, loc)
        if isinstance(shape, MapOf):
            return self._map(node, shape, loc)
        if isinstance(shape, ListOf):
            return self._list(node, shape, loc)
        if isinstance(node, Scalar):
            return self._leaf(node, shape, loc)
        return node

    def _fields(self, node: Node, shape: Fields, loc: Loc) -> Node:
        if isinstance(node, Scalar):
            return self._spelled_out(node, shape, loc)
        if not isinstance(node, Block):
            return node
        entries: dict[str, Entry] = {}
        for key, entry in node.entries.items():
            below = shape.fields.get(key)
            if below is not None:
                entries[key] = Entry(entry.spot, self.shape(entry.node, below, (*loc, key)))
            elif not key.startswith("x-"):
                self._unknown(key, entry, shape, loc)
        return Block(entries, node.spot)

    def _spelled_out(self, node: Scalar, shape: Fields, loc: Loc) -> Node:
        """`scale: 3` as `scale: {min: 3, max: 3}`, so that an overlay can change one of them."""
        if node.value is None or isinstance(node.value, bool) or not shape.model.shorthand:
            return node
        entries = {
            key: Entry(node.spot, self.shape(node, shape.fields[key], (*loc, key))) for key in shape.model.shorthand
        }
        return Block(entries, node.spot)

    def _map(self, node: Node, shape: MapOf, loc: Loc) -> Node:
        if shape.assignments and isinstance(node, Items):
            return self._assignments(node, loc)
        if not isinstance(node, Block):
            return node
        entries = {
            key: Entry(entry.spot, self.shape(entry.node, shape.value, (*loc, key)))
            for key, entry in node.entries.items()
        }
        return Block(entries, node.spot)

    def _assignments(self, node: Items, loc: Loc) -> Node:
        entries: dict[str, Entry] = {}
        for index, item in enumerate(node.items):
            here = (*loc, index)
            if not isinstance(item, Scalar) or item.value is None:
                found = shown(None if isinstance(item, Scalar) else [] if isinstance(item, Items) else {})
                self._refuse(item, here, f"found {found}; expected NAME=value")
                continue
            name, equals, text = item.text.partition("=")
            if not equals and self._interpolate:  # Compose: a bare NAME is passed on
                text = f"${{{name}}}"
            value = self._leaf(Scalar(text, text, item.spot), Leaf(text=True), here)
            if name in entries:
                self._refuse(item, here, f"{name} is assigned a second time")
            entries[name] = Entry(item.spot, value)
        return Block(entries, node.spot)

    def _list(self, node: Node, shape: ListOf, loc: Loc) -> Node:
        if isinstance(node, Items):
            items = (self.shape(item, shape.item, (*loc, index)) for index, item in enumerate(node.items))
            return Items(tuple(items), node.spot)
        if isinstance(node, Scalar) and shape.bare:
            return self.shape(node, shape.item, loc)
        return node

    def _leaf(self, node: Scalar, shape: Leaf, loc: Loc) -> Scalar:
        if self._interpolate and "$" in node.text:
            node = self._interpolate(node, loc, shape.command)
        if shape.text and node.value is not None and not isinstance(node.value, str):
            return node._replace(value=node.text)
        return node

    def _unknown(self, key: str, entry: Entry, shape: Fields, loc: Loc) -> None:
        remedy = suggest_key(key, shape.model.__name__, shape.fields)
        problem = Problem(entry.spot.place, dotted((*loc, key)), "there is no such key", remedy)
        self._problems.append(problem)

    def _refuse(self, node: Node, loc: Loc, message: str) -> None:
        self._problems.append(Problem(node.spot.place, dotted(loc), message))
