"""A Kubernetes of values: objects of one namespace, with the refusals of a real one, and nothing that acts on them."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from shoal.engines.kubernetes.api import Access, Kind, Kubernetes
from shoal.engines.kubernetes.api.client import MANAGER
from shoal.engines.kubernetes.api.credentials import StaticToken
from shoal.engines.kubernetes.api.kinds import EVENT, KINDS, LEASE
from shoal.engines.kubernetes.api.refusals import refusal

SERVER = "fake://kubernetes"
LARGEST_BYTES = 1 << 20  # of all that a ConfigMap or Secret holds
NO_LABELS: Mapping[str, str] = {}

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class FakeKubernetes(Kubernetes):
    """Each write takes the next version, as etcd's revisions do.

    `before_write` is called before each replacement, as somebody else's chance; `away` makes every call fail; `writes`
    counts the objects that were replaced or applied; `now` is what things are stamped by (epoch seconds); `served` are
    the kinds that its discovery tells.
    """

    def __init__(self) -> None:
        super().__init__(Access(SERVER, None, StaticToken(None)), "f")
        self.kept: dict[str, dict[str, dict[str, Any]]] = {}  # by kind and name
        self.before_write: Callable[[], None] = lambda: None
        self.away: Exception | None = None
        self.writes = 0
        self.now = 1767225600.0
        self.served = [*KINDS.values(), EVENT, LEASE]
        self._versions = count(1)

    def of(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """The objects of a kind, by name."""
        return self.kept.setdefault(kind.name, {})

    async def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Its discovery, of `/api` and `/apis`."""
        assert method == "GET" and path in ("/api", "/apis") and "APIGroupDiscoveryList" in more["accept"]
        self._answer()
        groups: dict[str, list[Kind]] = {}
        for kind in self.served:
            if (path == "/api") is not bool(kind.group):
                groups.setdefault(kind.group, []).append(kind)
        return {
            "kind": "APIGroupDiscoveryList",
            "items": [
                {"metadata": {"name": group} if group else {}, "versions": [_version_of(kinds)]}
                for group, kinds in groups.items()
            ],
        }

    async def get(self, kind: Kind, name: str) -> dict[str, Any]:
        return copy.deepcopy(self._find(kind, name, "get"))

    async def list(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        found = [each for each in self._select(kind, labels) if _meets(each, fields)]
        return found, str(next(self._versions))

    async def pages(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> AsyncGenerator[tuple[list[dict[str, Any]], str], None]:
        yield await self.list(kind, labels, fields=fields)

    async def list_metadata(self, kind: Kind, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        return [{"metadata": each["metadata"]} for each in self._select(kind, labels)]

    async def create(self, kind: Kind, item: Mapping[str, Any]) -> dict[str, Any]:
        name = item["metadata"]["name"]
        self._answer()
        _check(kind, item)
        if name in self.of(kind):
            raise _refused(f"create {kind.name} {name}", 409, "AlreadyExists", f'{kind.plural} "{name}" already exists')
        stamped = f"{datetime.fromtimestamp(self.now, UTC):%Y-%m-%dT%H:%M:%SZ}"
        made = copy.deepcopy(dict(item))
        made["metadata"] |= {"creationTimestamp": stamped, "resourceVersion": str(next(self._versions))}
        made["metadata"].setdefault("uid", f"{kind.name}-{name}")
        self.of(kind)[name] = made
        return copy.deepcopy(made)

    async def apply(
        self, kind: Kind, item: Mapping[str, Any], *, force: bool = False, manager: str = MANAGER, dry_run: bool = False
    ) -> dict[str, Any]:
        assert force and manager == MANAGER
        self._answer()
        if dry_run:
            return copy.deepcopy(dict(item))
        self.before_write()
        self._refuse_outdated(kind, item)
        self.writes += 1
        return self._write(kind, item)

    async def replace(self, kind: Kind, item: Mapping[str, Any]) -> dict[str, Any]:
        name = item["metadata"]["name"]
        self.before_write()
        found = self._find(kind, name, "update")
        _check(kind, item)
        if found.get("immutable") and any(found.get(key) != item.get(key) for key in ("data", "binaryData")):
            raise _refused(f"update {kind.name} {name}", 422, "Invalid", "field is immutable when `immutable` is set")
        self._refuse_outdated(kind, item)
        self.writes += 1
        return self._write(kind, item)

    async def patch(self, kind: Kind, name: str, change: Mapping[str, Any], sub: str | None = None) -> dict[str, Any]:
        assert sub is None and set(change) == {"metadata"}
        patched = copy.deepcopy(self._find(kind, name, "patch"))
        for key, value in change["metadata"].items():
            patched["metadata"][key] = {**patched["metadata"].get(key, {}), **value}
        return self._write(kind, patched)

    async def delete(self, kind: Kind, name: str, *, grace_s: int | None = None, wait: bool = False) -> bool:
        self._answer()
        return self.of(kind).pop(name, None) is not None

    def _refuse_outdated(self, kind: Kind, item: Mapping[str, Any]) -> None:
        """What is said of another object or version than there is. A version alone lets what is gone be made anew."""
        about, there = item["metadata"], self.of(kind).get(item["metadata"]["name"])
        version = about.get("resourceVersion", "any")
        if there is None and "uid" in about:
            said = "uid mismatch: the provided object specified uid, and no existing object was found"
        elif there is not None and version not in ("any", there["metadata"]["resourceVersion"]):
            said = f'Operation cannot be fulfilled on {kind.plural} "{about["name"]}": the object has been modified'
        else:
            return
        raise _refused(f"update {kind.name} {about['name']}", 409, "Conflict", said)

    def _write(self, kind: Kind, item: Mapping[str, Any]) -> dict[str, Any]:
        written = copy.deepcopy(dict(item))
        name = written["metadata"]["name"]
        written["metadata"]["resourceVersion"] = str(next(self._versions))
        written["metadata"].setdefault("uid", f"{kind.name}-{name}")
        self.of(kind)[name] = written
        return copy.deepcopy(written)

    def _find(self, kind: Kind, name: str, verb: str) -> dict[str, Any]:
        self._answer()
        if name not in self.of(kind):
            raise _refused(f"{verb} {kind.name} {name}", 404, "NotFound", f'{kind.plural} "{name}" not found')
        return self.of(kind)[name]

    def _select(self, kind: Kind, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        self._answer()
        found = self.of(kind).values()
        return [copy.deepcopy(each) for each in found if labels.items() <= each["metadata"].get("labels", {}).items()]

    def _answer(self) -> None:
        if self.away is not None:
            raise self.away


def _version_of(kinds: Sequence[Kind]) -> dict[str, Any]:
    """As discovery tells it, of kinds of one group."""
    resources = [
        {
            "resource": kind.plural,
            "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.name},
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "verbs": ["get", "list", "delete"],
        }
        for kind in kinds
    ]
    return {"version": kinds[0].version, "freshness": "Current", "resources": resources}


def _meets(item: Mapping[str, Any], fields: str) -> bool:
    """Selectors of fields at the top, `type=Warning` and `reason!=BackOff`."""
    for each in fields.split(",") if fields else ():
        key, _, value = each.partition("=")
        if (item.get(key.removesuffix("!")) == value) is key.endswith("!"):
            return False
    return True


def _check(kind: Kind, item: Mapping[str, Any]) -> None:
    """What every object has to be."""
    about = item["metadata"]
    assert (item["kind"], item["apiVersion"]) == (kind.name, kind.api_version)
    assert _NAME.fullmatch(about["name"]), about["name"]
    for value in about.get("labels", {}).values():
        assert _LABEL.fullmatch(value), value
    if kind.name not in {"ConfigMap", "Secret"}:
        return
    encoded = dict(item.get("binaryData") or {}) | dict((item.get("data") or {}) if kind.name == "Secret" else {})
    plain = dict((item.get("data") if kind.name == "ConfigMap" else item.get("stringData")) or {})
    for key in (*encoded, *plain):
        assert _KEY.fullmatch(key), key
    held = [base64.b64decode(value, validate=True) for value in encoded.values()]
    held += [value.encode() for value in plain.values()]
    if sum(map(len, held)) > LARGEST_BYTES:
        raise _refused(f"write {kind.name} {about['name']}", 422, "Invalid", "Too long: may not be more than 1048576")


def _refused(asked: str, status: int, reason: str, said: str) -> Exception:
    return refusal(SERVER, asked, status, {"reason": reason, "message": said})
