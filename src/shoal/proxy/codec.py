"""Snapshots and traffic as JSON, for the line between controller and gateways and for the disk.

Fields that hold their default are left out, and unknown fields are passed over, so that a gateway of a neighbouring
version understands what it can. `PROTOCOL` changes when that is not enough.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar, cast

from shoal.core.routing import AgentRoute, Caller, ExternalRoute, Snapshot
from shoal.errors import GatewayError

PROTOCOL = 1

T = TypeVar("T")
_PARTS = ("agents", "callers", "externals")


@dataclass(frozen=True, slots=True)
class Delta:
    """What leads from one snapshot to the next. `base` has none of the three mappings' entries; with `full` the
    receiver forgets what it had."""

    version: int
    full: bool
    base: Snapshot
    agents: Mapping[str, AgentRoute] = field(default_factory=dict[str, AgentRoute])
    callers: Mapping[str, Caller] = field(default_factory=dict[str, Caller])
    externals: Mapping[str, ExternalRoute] = field(default_factory=dict[str, ExternalRoute])
    gone_agents: tuple[str, ...] = ()
    gone_callers: tuple[str, ...] = ()
    gone_externals: tuple[str, ...] = ()


def diff(before: Snapshot | None, after: Snapshot, version: int) -> Delta:
    """An entry counts as changed when it is another object: the cheap question, asked of 1,000 agents."""
    changed: dict[str, Any] = {}
    for part in _PARTS:
        new: Mapping[str, object] = getattr(after, part)
        old: Mapping[str, object] = getattr(before, part) if before else {}
        changed[part] = {name: value for name, value in new.items() if old.get(name) is not value}
        changed[f"gone_{part}"] = tuple(name for name in old if name not in new)
    return Delta(version=version, full=before is None, base=_with_parts(after, {}, {}, {}), **changed)


def patch(before: Snapshot | None, delta: Delta) -> Snapshot:
    """The snapshot after the delta. What is equal to what was there stays the same object, so that a gateway which is
    told everything again renders nothing again. Raises GatewayError if there is nothing to patch."""
    if before is None and not delta.full:
        raise GatewayError("the controller sent a change before the whole")
    merged: list[dict[str, Any]] = []
    for part in _PARTS:
        old: Mapping[str, object] = getattr(before, part) if before else {}
        new: Mapping[str, object] = getattr(delta, part)
        gone = set(getattr(delta, f"gone_{part}"))
        kept = {} if delta.full else {name: value for name, value in old.items() if name not in gone}
        merged.append(kept | {name: old[name] if old.get(name) == value else value for name, value in new.items()})
    return _with_parts(delta.base, *merged)


def _with_parts(
    base: Snapshot,
    agents: Mapping[str, AgentRoute],
    callers: Mapping[str, Caller],
    externals: Mapping[str, ExternalRoute],
) -> Snapshot:
    return replace(base, agents=agents, callers=callers, externals=externals)


def dumps(value: object) -> bytes:
    """A frozen dataclass of values as JSON."""
    return json.dumps(to_json(value), separators=(",", ":")).encode()


class SnapshotWriter:
    """`dumps` of one snapshot after the other: a part that is the object of the last time is not encoded again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[object, bytes]] = {}

    def dumps(self, snapshot: Snapshot) -> bytes:
        known: dict[tuple[str, str], tuple[object, bytes]] = {}
        texts = [dumps(_with_parts(snapshot, {}, {}, {}))[1:-1]]
        for part in _PARTS:
            values: Mapping[str, object] = getattr(snapshot, part)
            for name, value in values.items():
                entry = self._known.get((part, name))
                if entry is None or entry[0] is not value:
                    entry = (value, json.dumps(name).encode() + b":" + dumps(value))
                known[part, name] = entry
            texts.append(b'"%b":{%b}' % (part.encode(), b",".join(known[part, name][1] for name in values)))
        self._known = known
        return b"{" + b",".join(texts) + b"}"


def loads(cls: type[T], data: bytes) -> T:
    """The inverse of `dumps`. Raises GatewayError for what is not such a value."""
    try:
        return cast("T", _build(cls, json.loads(data)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GatewayError(f"found something that is not a {cls.__name__}: {error}") from error


def to_json(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {
            item.name: to_json(part)
            for item in fields(value)
            if (part := getattr(value, item.name)) != _default(type(value), item.name)
        }
    if isinstance(value, Mapping):
        return {key: to_json(part) for key, part in cast("Mapping[str, object]", value).items()}
    if isinstance(value, tuple):
        return [to_json(part) for part in cast("tuple[object, ...]", value)]
    return value


@cache
def _default(cls: Any, name: str) -> object:
    item = next(item for item in fields(cls) if item.name == name)
    if item.default is not MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not MISSING else MISSING


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _build(kind: Any, value: Any) -> Any:
    """Builds what the annotation `kind` says from JSON's own types."""
    if is_dataclass(kind):
        hints = _hints(cast("type", kind))
        return cast("Any", kind)(**{name: _build(hints[name], part) for name, part in value.items() if name in hints})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        inner = [argument for argument in arguments if argument is not types.NoneType]
        return None if value is None else _build(inner[0], value)
    if origin is tuple:
        return tuple(_build(arguments[0], part) for part in value)
    if origin is not None and issubclass(origin, Mapping):
        return {str(key): _build(arguments[1], part) for key, part in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, found {value!r}")
    return value
