"""The checks of `shoal doctor` for a fleet on Kubernetes; none of them changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from shoal import __version__
from shoal.cli.findings import Finding
from shoal.cli.kubernetes.place import KubernetesPlace
from shoal.core.broker import broker_users
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import (
    CLAIM,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    POD_METRICS,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    STORAGE_CLASS,
)
from shoal.engines.kubernetes.install import OLDEST
from shoal.engines.kubernetes.names import FLEET, labels_of
from shoal.engines.kubernetes.removal import REMOVED
from shoal.engines.kubernetes.render_own import CONTROLLERS_RULES
from shoal.engines.kubernetes.render_pod import GPU
from shoal.errors import EngineError, ShoalError
from shoal.spec.model import Fleet
from shoal.spec.volumes import is_host_path

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"

Right = tuple[str, str, str]  # verb, group, resource

_INSTALLED = (
    DEPLOYMENT, SERVICE, SERVICE_ACCOUNT, ROLE, ROLE_BINDING, NETWORK_POLICY, DISRUPTION_BUDGET,
)  # fmt: skip
# By what they are for, and what is not to be had without.
_RIGHTS: Mapping[str, tuple[str, Sequence[Right]]] = {
    "rights": (
        "`shoal up` needs them",
        (
            *((verb, kind.group, kind.plural) for kind in _INSTALLED for verb in ("get", "list", "create", "patch")),
            *(("delete", kind.group, kind.plural) for kind in (NETWORK_POLICY,)),
            *((verb, "", "secrets") for verb in ("get", "list", "create", "patch")),
            *((verb, "", "configmaps") for verb in ("get", "create", "update")),
            ("list", "", "pods"),
        ),
    ),
    "rights_to_look": (
        "`status`, `logs`, `explain` and all else that asks the controller need them",
        (("get", "", "services/proxy"), ("create", "", "services/proxy"), ("get", "", "secrets")),
    ),
    "rights_to_end": (
        "`shoal down` needs them",
        (
            ("list", "", "pods"),
            *((verb, kind.group, kind.plural) for kind in (*REMOVED, CLAIM) for verb in ("list", "delete")),
        ),
    ),
}
_RIGHTS_TO_NAMESPACE: Sequence[Right] = (("get", "", "namespaces"), ("delete", "", "namespaces"))


async def check_kubernetes(place: KubernetesPlace, fleet: Fleet) -> list[Finding]:
    """All of them, as far as what comes before lets them look."""
    try:
        async with place.kubernetes() as kubernetes:
            found = [await _check_version(kubernetes)]
            if found[-1].result != "failure":
                found += [
                    await _check_namespace(kubernetes, place.fleet),
                    *[await _check_rights(kubernetes, name) for name in _RIGHTS],
                    await _check_rights_to_namespace(kubernetes),
                    await _check_grants(kubernetes),
                    await _check_metrics(kubernetes, fleet),
                    await _check_storage(kubernetes, fleet),
                    *await _check_gpus(kubernetes, fleet),
                    _ENFORCEMENT,
                ]
    except EngineError as error:
        return [Finding("kubernetes", "failure", str(error))]
    return [*found, await _check_controller(place)]


async def _check_version(kubernetes: Kubernetes) -> Finding:
    major, minor = await kubernetes.version()
    access = kubernetes.access
    words = f"{major}.{minor} at {access.server}{f' (context {access.context})' if access.context else ''}"
    if (major, minor) < OLDEST:
        lack = "older ones have no native `sleep` before a stop and no exec over WebSockets"
        return Finding("kubernetes", "failure", words, f"expected {OLDEST[0]}.{OLDEST[1]} or newer: {lack}")
    return Finding("kubernetes", "ok", words)


async def _check_namespace(kubernetes: Kubernetes, fleet: str) -> Finding:
    name = kubernetes.namespace
    try:
        there = await kubernetes.find(NAMESPACE, name)
    except KubernetesError as error:
        if error.status != 403:
            raise
        return Finding(
            "namespace", "note", f"you may not look whether {name} is there", "`shoal up` takes it that it is"
        )
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


async def _check_rights(kubernetes: Kubernetes, name: str) -> Finding:
    """Those that all of one purpose take."""
    purpose, rights = _RIGHTS[name]
    missing = await _missing(kubernetes, rights)
    if missing:
        remedy = f"let a Role in {kubernetes.namespace} with these be bound to you: {purpose}"
        return Finding(name, "failure", f"you may not {', '.join(missing)}", remedy)
    return Finding(name, "ok", f"all that is needed in {kubernetes.namespace}")


async def _check_rights_to_namespace(kubernetes: Kubernetes) -> Finding:
    """Without them the namespace alone is left."""
    missing = await _missing(kubernetes, _RIGHTS_TO_NAMESPACE)
    if missing:
        remedy = f"`shoal down --volumes` leaves {kubernetes.namespace}, and says so"
        return Finding("rights_to_namespace", "note", f"you may not {', '.join(missing)}", remedy)
    return Finding("rights_to_namespace", "ok", f"`shoal down --volumes` may remove {kubernetes.namespace}")


async def _check_grants(kubernetes: Kubernetes) -> Finding:
    """Kubernetes lets nobody give a Role, such as the controller's, rights that he does not have himself."""
    if await _may(kubernetes, "escalate", ROLE.group, ROLE.plural):
        return Finding("rights_to_grant", "ok", "you may give the controller its Role")
    rights = [
        (verb, group, resource)
        for rule in CONTROLLERS_RULES
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    missing = await _missing(kubernetes, rights)
    if missing:
        remedy = "let who has them run `shoal up` the first time: the controller's Role has them, and you can't give it"
        return Finding("rights_to_grant", "failure", f"you may not {', '.join(missing)}", remedy)
    return Finding("rights_to_grant", "ok", "you may give the controller its Role")


async def _missing(kubernetes: Kubernetes, rights: Sequence[Right]) -> list[str]:
    allowed = await asyncio.gather(*(_may(kubernetes, *right) for right in rights))
    return [
        f"{verb} {resource}{f'.{group}' if group else ''}"
        for (verb, group, resource), may in zip(rights, allowed, strict=True)
        if not may
    ]


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
    if broker_users(fleet):
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


async def _check_gpus(kubernetes: Kubernetes, fleet: Fleet) -> list[Finding]:
    """Nothing where no agent asks for one."""
    asked = {name: agent.resources.gpu for name, agent in sorted(fleet.agents.items()) if agent.resources.gpu}
    if not asked:
        return []
    try:
        nodes, _ = await kubernetes.list(NODE)
    except KubernetesError as error:
        remedy = f"where none offers {GPU} {', '.join(asked)} can't start"
        return [Finding("gpus", "note", f"nodes can't be listed: {error.said}", remedy)]
    most = max((int(_allocatable(node).get(GPU, 0)) for node in nodes), default=0)
    waiting = [name for name, count in asked.items() if count > most]
    if not waiting:
        return [Finding("gpus", "ok", f"a node offers up to {most} {GPU}")]
    remedy = (
        f"until one does {', '.join(waiting)} can't start: install NVIDIA's device plugin, or let the cluster's "
        "autoscaler add such nodes"
    )
    return [Finding("gpus", "warning", f"no node offers {max(asked.values())} {GPU}; the most is {most}", remedy)]


def _allocatable(node: Mapping[str, Any]) -> Mapping[str, str]:
    status: Mapping[str, Mapping[str, str]] = node.get("status") or {}
    return status.get("allocatable") or {}


_ENFORCEMENT = Finding(
    "network_policies",
    "note",
    "the API does not tell whether the cluster's network enforces them",
    "where it does not, every pod of the cluster reaches agents past the gateways; from a pod of another namespace "
    "`wget -T 3 http://IP:PORT` of an agent's pod has to time out",
)


async def _check_controller(place: KubernetesPlace) -> Finding:
    try:
        status = await place.client().status()
    except ShoalError as error:
        return Finding("controller", "note", str(error))
    if status.version != __version__:
        remedy = "`shoal up` replaces it"
        return Finding("controller", "note", f"answers, Shoal {status.version}; this is {__version__}", remedy)
    return Finding("controller", "ok", f"answers, Shoal {status.version}")
