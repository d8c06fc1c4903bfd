"""The checks of `shoal doctor` for a fleet on Kubernetes; none of them changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shoal import __version__
from shoal.cli.findings import Finding
from shoal.cli.kubernetes.place import KubernetesPlace
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import NAMESPACE, POD_METRICS, STORAGE_CLASS
from shoal.engines.kubernetes.install import OLDEST
from shoal.engines.kubernetes.names import FLEET, labels_of
from shoal.errors import EngineError, ShoalError
from shoal.spec.model import Fleet
from shoal.spec.volumes import is_host_path

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"

# What `up` does itself, and what reading takes: verb, group, resource, and what is missing without it.
_RIGHTS: Sequence[tuple[str, str, str]] = (
    ("create", "apps", "deployments"),
    ("patch", "apps", "deployments"),
    ("create", "", "secrets"),
    ("get", "", "secrets"),
    ("create", "", "configmaps"),
    ("update", "", "configmaps"),
    ("create", "", "services"),
    ("create", "", "serviceaccounts"),
    ("create", "rbac.authorization.k8s.io", "roles"),
    ("create", "rbac.authorization.k8s.io", "rolebindings"),
    ("create", "networking.k8s.io", "networkpolicies"),
    ("create", "policy", "poddisruptionbudgets"),
    ("get", "", "services/proxy"),
    ("create", "", "services/proxy"),
)


async def check_kubernetes(place: KubernetesPlace, fleet: Fleet) -> list[Finding]:
    """All of them, as far as what comes before lets them look."""
    try:
        async with place.kubernetes() as kubernetes:
            found = [await _check_version(kubernetes)]
            if found[-1].result != "failure":
                found += [
                    await _check_namespace(kubernetes, place.fleet),
                    await _check_rights(kubernetes),
                    await _check_metrics(kubernetes, fleet),
                    await _check_storage(kubernetes, fleet),
                ]
    except EngineError as error:
        return [Finding("kubernetes", "failure", str(error))]
    return [*found, await _check_controller(place)]


async def _check_version(kubernetes: Kubernetes) -> Finding:
    major, minor = await kubernetes.version()
    access = kubernetes.access
    words = f"{major}.{minor} at {access.server}{f' (context {access.context})' if access.context else ''}"
    if (major, minor) < OLDEST:
        return Finding("kubernetes", "failure", words, f"expected {OLDEST[0]}.{OLDEST[1]} or newer")
    return Finding("kubernetes", "ok", words)


async def _check_namespace(kubernetes: Kubernetes, fleet: str) -> Finding:
    name = kubernetes.namespace
    there = await kubernetes.find(NAMESPACE, name)
    if there is None:
        if await _may(kubernetes, "create", "", "namespaces"):
            return Finding("namespace", "ok", f"{name} is not there yet; `shoal up` makes it")
        return Finding("namespace", "failure", f"{name} is not there", "you may not make it: let an admin do that")
    if there["metadata"].get("deletionTimestamp"):
        return Finding("namespace", "failure", f"{name} is being deleted", "wait until it is gone, or name another one")
    owner = labels_of(there).get(FLEET)
    if owner not in (None, fleet):
        return Finding("namespace", "failure", f"{name} is of fleet {owner}", "name another one by `namespace`")
    return Finding("namespace", "ok", f"{name} is there")


async def _check_rights(kubernetes: Kubernetes) -> Finding:
    allowed = await asyncio.gather(*(_may(kubernetes, *right) for right in _RIGHTS))
    missing = [
        f"{verb} {resource}{f'.{group}' if group else ''}"
        for (verb, group, resource), may in zip(_RIGHTS, allowed, strict=True)
        if not may
    ]
    if missing:
        remedy = f"let a Role in {kubernetes.namespace} with these be bound to you: `shoal up` needs them"
        return Finding("rights", "failure", f"you may not {', '.join(missing)}", remedy)
    return Finding("rights", "ok", f"all that `shoal up` needs in {kubernetes.namespace}")


async def _may(kubernetes: Kubernetes, verb: str, group: str, resource: str) -> bool:
    name, _, sub = resource.partition("/")
    about = {"verb": verb, "group": group, "resource": name, "subresource": sub, "namespace": kubernetes.namespace}
    told = await kubernetes.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        json={
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": about},
        },
        asked="what you may do",
    )
    return bool(told["status"].get("allowed"))


async def _check_metrics(kubernetes: Kubernetes, fleet: Fleet) -> Finding:
    wanted = sorted(name for name, agent in fleet.agents.items() if agent.scale.target.cpu or agent.scale.target.memory)
    try:
        await kubernetes.list(POD_METRICS)
    except KubernetesError as error:
        words = f"metrics.k8s.io does not answer: {error.said}"
        if wanted:
            remedy = f"install metrics-server: {', '.join(wanted)} can't be scaled by CPU or memory without it"
            return Finding("metrics", "failure", words, remedy)
        return Finding("metrics", "note", words, "`status` shows no use of CPU and memory without metrics-server")
    return Finding("metrics", "ok", "metrics.k8s.io answers")


async def _check_storage(kubernetes: Kubernetes, fleet: Fleet) -> Finding:
    wanted = sorted(
        name for name, agent in fleet.agents.items() if any(not is_host_path(volume) for volume in agent.volumes)
    )
    if any(agent.queue for agent in fleet.agents.values()):
        wanted.append("the embedded broker")
    try:
        classes, _ = await kubernetes.list(STORAGE_CLASS)
    except KubernetesError as error:
        return Finding("storage", "note", f"storage classes can't be listed: {error.said}")
    asked = fleet.kubernetes.storage_class
    names = [item["metadata"]["name"] for item in classes]
    if asked is not None and asked not in names:
        words = f"no storage class {asked}; there are: {', '.join(names) or 'none'}"
        return Finding("storage", "failure", words, "set kubernetes.storage_class to one of them")
    default = next((i["metadata"]["name"] for i in classes if _is_default(i["metadata"].get("annotations"))), None)
    if asked is None and default is None and wanted:
        remedy = (
            f"set kubernetes.storage_class (there are: {', '.join(names) or 'none'}): {', '.join(wanted)} need volumes"
        )
        return Finding("storage", "failure", "the cluster has no default storage class", remedy)
    return Finding("storage", "ok", f"volumes are of {asked or default or 'no class; none are asked for'}")


def _is_default(annotations: dict[str, str] | None) -> bool:
    return (annotations or {}).get(_DEFAULT_CLASS) == "true"


async def _check_controller(place: KubernetesPlace) -> Finding:
    try:
        status = await place.client().status()
    except ShoalError as error:
        return Finding("controller", "note", str(error))
    if status.version != __version__:
        remedy = "`shoal up` replaces it"
        return Finding("controller", "note", f"answers, Shoal {status.version}; this is {__version__}", remedy)
    return Finding("controller", "ok", f"answers, Shoal {status.version}")
