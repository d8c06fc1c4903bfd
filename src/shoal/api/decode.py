"""JSON back into the views: by the annotations of the dataclasses, so that a view is written down once.

Keys that this version doesn't know are passed over, and missing ones take their default: a command line and a
controller of neighbouring versions understand each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

View = TypeVar("View")
_Convert = Callable[[Any], Any]


def decode(view: type[View], value: Any) -> View:
    """The object of `view` that `value` (parsed JSON) describes. Raises ValueError where it doesn't fit."""
    try:
        return cast(View, _converter(view)(value))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"this is no {view.__name__}: {error}") from error


@cache
def _converter(hint: Any) -> _Convert:
    if dataclasses.is_dataclass(hint):
        return _dataclass_converter(cast(type[Any], hint))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        inner = _converter(next(argument for argument in arguments if argument is not NoneType))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        item = _converter(arguments[0])
        return lambda value: tuple(item(each) for each in value)
    return _as_it_is


def _dataclass_converter(view: type[Any]) -> _Convert:
    hints = get_type_hints(view)
    converters = {field.name: _converter(hints[field.name]) for field in dataclasses.fields(view)}

    def convert(value: Any) -> Any:
        known = {key: converters[key](each) for key, each in value.items() if key in converters}
        return view(**known)

    return convert


def _as_it_is(value: Any) -> Any:
    return value
