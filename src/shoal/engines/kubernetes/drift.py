"""What somebody else changed in an object that Shoal made, read from who owns its fields. Pure.

The API server notes for each field who set it last (managedFields), so what it fills in itself, what it writes in
another way (`0.5` of a CPU as `500m`), and what its controllers keep there are no changes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from shoal.core.drift import Drift
from shoal.engines.kubernetes.api.client import MANAGER
from shoal.engines.kubernetes.times import epoch_s
from shoal.engines.kubernetes.usage import parse_quantity

Object = Mapping[str, Any]
Fields = Mapping[str, Any]

_NOT_COMPARED = frozenset(("apiVersion", "kind", "metadata", "stringData", "status"))
# What people set to have replicas started anew; nothing of them differs by it.
_NOT_OURS_TO_SAY = ("spec.template.metadata", "spec.replicas")
_QUANTITIES = (".resources.", ".sizeLimit")
_CLIENT_SIDE = "kubectl-client-side-apply"
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # an annotation


@dataclass(frozen=True, slots=True)
class _Owner:
    name: str
    at: float | None
    fields: Fields | None  # at the place that is looked at: None where it has nothing there, empty where all below

    def below(self, key: str) -> _Owner:
        return _Owner(self.name, self.at, self.fields and self.fields.get(key))

    def elements(self) -> list[str]:
        """By what the API server knows the elements of a list."""
        return [key for key in self.fields or () if key.startswith("k:")]


def drift_of(rendered: Object, there: Object) -> list[Drift]:
    """What Shoal says and is not so any more, as somebody else changed it or took it out."""
    owners = _owners(there)
    found: list[Drift] = []
    if owners:
        where = _called(there)
        for key in rendered.keys() - _NOT_COMPARED:
            found += _changed(where, key, rendered[key], there.get(key), [each.below(f"f:{key}") for each in owners])
    return sorted(found, key=lambda each: each.path)


def additions_of(rendered: Object, there: Object) -> list[Drift]:
    """What others put in of which Shoal says nothing."""
    found: list[Drift] = []
    for owner in _others(there):
        found += _added(_called(there), "spec", rendered["spec"], there["spec"], owner.below("f:spec"))
    return sorted(found, key=lambda each: each.path)


def touched_by_others(there: Object) -> bool:
    """Whether anybody else set something of what it is to be, but how many; of `there` its metadata are enough."""
    return any(set((owner.fields or {}).get("f:spec") or ()) - {"f:replicas"} for owner in _others(there))


def _called(there: Object) -> str:
    return f"{there['kind']} {there['metadata']['name']}"


def _owners(there: Object) -> list[_Owner]:
    entries: Sequence[Mapping[str, Any]] = there["metadata"].get("managedFields") or ()
    return [
        _Owner(str(entry.get("manager", "")), epoch_s(entry.get("time")), _said(there, entry))
        for entry in entries
        if entry.get("subresource") != "status"
    ]


def _said(there: Object, entry: Object) -> Fields:
    """What the owner set. Of who applies without `--server-side` what the API server filled in is noted as his too;
    what he wrote stands in an annotation."""
    fields: Fields = entry.get("fieldsV1") or {}
    annotations: Mapping[str, str] = there["metadata"].get("annotations") or {}
    applied = annotations.get(_APPLIED)
    if entry.get("manager") != _CLIENT_SIDE or applied is None:
        return fields
    try:
        return _only(fields, json.loads(applied))
    except ValueError:
        return fields


def _only(fields: Fields, written: object) -> Fields:
    """Those that are written. One of which no field is left goes too: empty it would be the whole."""
    kept: dict[str, Any] = {}
    for key, below in fields.items():
        inner = _written(key, written)
        left: Fields = _only(below, inner) if inner is not None else {}
        if left or (inner is not None and not below):
            kept[key] = left
    return kept


def _written(key: str, written: object) -> object:
    """What is written in the place of a key of fields; `None` for nothing."""
    if key.startswith("f:"):
        return cast("Object", written).get(key[2:]) if isinstance(written, Mapping) else None
    if key.startswith("k:"):
        elements = cast("Sequence[Object]", written) if isinstance(written, Sequence) else ()
        return next((each for each in elements if _meets(each, json.loads(key[2:]))), None)
    return written


def _others(there: Object) -> list[_Owner]:
    return [owner for owner in _owners(there) if owner.name not in (MANAGER, "kube-controller-manager")]


def _changed(where: str, path: str, wanted: object, found: object, owners: Sequence[_Owner]) -> Iterator[Drift]:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        wants, has = cast("Object", wanted), cast("Object", found)
        for key, value in wants.items():
            yield from _changed(where, f"{path}.{key}", value, has.get(key), [_within(o, f"f:{key}") for o in owners])
    elif isinstance(wanted, Sequence) and any(owner.elements() for owner in owners):
        there = cast("Sequence[Object]", found or ())
        for element in cast("Sequence[Object]", wanted):
            key = next(
                (key for owner in owners for key in owner.elements() if _meets(element, json.loads(key[2:]))), None
            )
            is_it = json.loads(key[2:]) if key is not None else _identity(element, owners)
            match = next((each for each in there if _says(each, is_it)), None)
            below = [_within(owner, key or "") for owner in owners]
            yield from _changed(where, f"{path}[{_name_of(element)}]", element, match, below)
    elif not (
        _says(found, cast("object", wanted))
        or any(owner.name == MANAGER and owner.fields is not None for owner in owners)
        or _same_quantity(path, found, cast("object", wanted))
    ):
        by = max(
            (owner for owner in owners if owner.name != MANAGER and owner.fields is not None),
            key=lambda owner: owner.at or 0.0,
            default=None,
        )
        yield Drift(where, path, found, wanted, by.name if by else "", by.at if by else None)


def _added(where: str, path: str, wanted: object, found: object, owner: _Owner) -> Iterator[Drift]:
    if path in _NOT_OURS_TO_SAY:
        return
    if wanted is None or (owner.fields and "." in owner.fields and not wanted):
        yield Drift(where, path, found, None, owner.name, owner.at)
        return
    for key in owner.fields or ():
        if key.startswith("f:") and isinstance(wanted, Mapping) and isinstance(found, Mapping):
            wants, has, name = cast("Object", wanted), cast("Object", found), key[2:]
            yield from _added(where, f"{path}.{name}", wants.get(name), has.get(name), owner.below(key))
        elif key.startswith("k:") and isinstance(wanted, Sequence) and isinstance(found, Sequence):
            is_it: Object = json.loads(key[2:])
            match = next((each for each in cast("Sequence[Object]", found) if _says(each, is_it)), None)
            ours = next((each for each in cast("Sequence[Object]", wanted) if _meets(each, is_it)), None)
            yield from _added(where, f"{path}[{_name_of(is_it)}]", ours, match, owner.below(key))


def _within(owner: _Owner, key: str) -> _Owner:
    """Who owns a map or a list as a whole owns what is in it."""
    return owner if owner.fields is not None and not owner.fields else owner.below(key)


def _identity(element: Object, owners: Sequence[_Owner]) -> Object:
    """Of an element that nobody owns, as it was taken out: what others of its list are known by."""
    known: Object = next(json.loads(key[2:]) for owner in owners for key in owner.elements())
    return {name: element[name] for name in known if name in element}


def _meets(element: Object, key: Object) -> bool:
    """The element may leave out what is filled in, such as a protocol."""
    return any(name in element for name in key) and all(element.get(name, key[name]) == key[name] for name in key)


def _says(found: object, wanted: object) -> bool:
    """Whether all that is wanted is there; the API server fills in more, and leaves out what is empty."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        has = cast("Object", found)
        return all(_says(has.get(key), value) for key, value in cast("Object", wanted).items())
    if isinstance(wanted, Sequence) and isinstance(found, Sequence) and not isinstance(wanted, str):
        wants, others = cast("Sequence[object]", wanted), cast("Sequence[object]", found)
        return len(wants) == len(others) and all(map(_says, others, wants))
    return found == wanted or (found is None and not wanted)


def _same_quantity(path: str, found: object, wanted: object) -> bool:
    """`1` of a CPU is `1000m`, as the API server writes it whoever applied the one or the other."""
    if not (isinstance(found, str) and isinstance(wanted, str) and any(each in path for each in _QUANTITIES)):
        return False
    try:
        return math.isclose(parse_quantity(found), parse_quantity(wanted), rel_tol=1e-9)
    except ValueError:
        return False


def _name_of(element: Object) -> str:
    for key in ("name", "mountPath", "containerPort", "port", "topologyKey"):
        if key in element:
            return str(element[key])
    return next(iter(map(str, element.values())), "")
