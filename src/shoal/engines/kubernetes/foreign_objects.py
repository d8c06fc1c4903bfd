"""What in a namespace is not the fleet's, of whatever kind: with the namespace it would go for good.

The API server's own discovery says which kinds there are, those of add-ons too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kind, Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.refusals import refusal
from shoal.engines.kubernetes.names import labels_of

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_AT_ONCE = 8
_NAMED = 5  # of what is told
# What the cluster notes of what runs, or shows a second time.
_NO_GROUPS = ("metrics.k8s.io", "events.k8s.io", "packages.operators.coreos.com")
_NO_KINDS = ("Event",)
# What the cluster puts into each namespace by itself.
_GIVEN = (
    ("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt"), ("ConfigMap", "openshift-service-ca.crt"),
    ("ConfigMap", "istio-ca-root-cert"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Foreign:
    """`objects` by kind and name; `unseen` says what can't be looked at, and why."""

    objects: Sequence[str]
    unseen: Sequence[str]

    def __str__(self) -> str:
        """In words; empty where there is nothing."""
        told = [f"{_some(self.objects)} not this fleet's"] if self.objects else []
        return "; ".join(
            [*told, *([f"not everything there can be seen: {_first(self.unseen)}"] if self.unseen else [])]
        )


async def find_foreign(kubernetes: Kubernetes, fleet: str) -> Foreign:
    """What is neither of the fleet, nor of the cluster itself, nor owned by something else there."""
    try:
        kinds = [kind for path in ("/api", "/apis") for kind in await _discover(kubernetes, path)]
    except KubernetesError as error:
        return Foreign((), (f"which kinds there are: {error.said}",))
    slots = asyncio.Semaphore(_AT_ONCE)
    objects: list[str] = []
    unseen: list[str] = []
    known = {(kind.group, kind.name) for kind in kinds}

    async def look(kind: Kind) -> None:
        async with slots:
            try:
                items = await kubernetes.list_metadata(kind, {})
            except KubernetesError as error:
                unseen.append(error.said)
                return
        objects.extend(f"{kind.name} {item['metadata']['name']}" for item in items if _is_foreign(item, kind))

    def _is_foreign(item: Mapping[str, Any], kind: Kind) -> bool:
        given = (kind.name, item["metadata"]["name"]) in _GIVEN
        return not given and labels_of(item).get(names.FLEET) != fleet and not _is_owned(item, known)

    async with asyncio.TaskGroup() as tasks:
        for kind in kinds:
            if kind.group not in _NO_GROUPS and kind.name not in _NO_KINDS:
                tasks.create_task(look(kind))
    return Foreign(sorted(objects), sorted(unseen))


async def _discover(kubernetes: Kubernetes, path: str) -> list[Kind]:
    """The kinds of a namespace that can be listed, each in the version that the server likes best. Raises
    KubernetesError."""
    told = await kubernetes.request("GET", path, accept=_DISCOVERY, asked="which kinds there are")
    found: dict[tuple[str, str], Kind] = {}
    if told.get("kind") != "APIGroupDiscoveryList":  # of what stands between and does not pass on what is asked for
        raise refusal(kubernetes.access.server, path, 406, f"{path} answers {told.get('kind')}, in place of all kinds")
    for group in told["items"]:
        name = group["metadata"].get("name", "")
        for version in group["versions"]:
            for each in version.get("resources") or ():
                if each["scope"] == "Namespaced" and "list" in (each.get("verbs") or ()):
                    kind = Kind(name, version["version"], each["responseKind"]["kind"], each["resource"])
                    found.setdefault((name, each["resource"]), kind)
    return list(found.values())


def _is_owned(item: Mapping[str, Any], known: Collection[tuple[str, str]]) -> bool:
    """By something that can be in the same namespace: it goes with that, which is looked at by itself."""
    owners: Sequence[Mapping[str, str]] = item["metadata"].get("ownerReferences") or ()
    return any((each["apiVersion"].rpartition("/")[0], each["kind"]) in known for each in owners)


def _some(objects: Sequence[str]) -> str:
    return f"{_first(objects)} {'are' if len(objects) > 1 else 'is'}"


def _first(told: Sequence[str]) -> str:
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return ", ".join(told[:_NAMED]) + more
