"""What has to be in a namespace before a fleet's controller can run there.

The command line does this, with the rights that a person has: from then on the controller acts, with few rights of its
own, and has no other keys than those that it finds here.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import (
    AUTOSCALER,
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    JOB,
    LEASE,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
)
from shoal.engines.kubernetes.applying import ensure
from shoal.engines.kubernetes.foreign_objects import find_foreign
from shoal.engines.kubernetes.names import CONTROLLER, Role, labels_of, role_of, secret_name
from shoal.engines.kubernetes.own_keys import Keys, ensure_keys
from shoal.engines.kubernetes.render_fleet import render_installed
from shoal.engines.kubernetes.render_own import Own, render_namespace
from shoal.engines.kubernetes.render_pull import render_pull
from shoal.engines.kubernetes.waiting import wait_gone, wait_namespace_gone
from shoal.errors import EngineError
from shoal.spec.model import Fleet

OLDEST = (1, 30)

_KEPT_DATA: tuple[tuple[Kind, Role | None], ...] = ((CONFIG_MAP, Role.STATE), (SECRET, Role.SECRET))
REMOVED: tuple[Kind, ...] = (
    AUTOSCALER, DEPLOYMENT, STATEFUL_SET, JOB, SERVICE, DISRUPTION_BUDGET, NETWORK_POLICY, ROLE_BINDING, ROLE,
    SERVICE_ACCOUNT, CONFIG_MAP, SECRET, LEASE,
)  # fmt: skip


async def check_version(kubernetes: Kubernetes) -> None:
    """Raises EngineError where the cluster is too old."""
    major, minor = await kubernetes.version()
    if (major, minor) < OLDEST:
        raise EngineError(
            f"Kubernetes at {kubernetes.access.server} is {major}.{minor}, expected {OLDEST[0]}.{OLDEST[1]} or newer: "
            "older ones have no native `sleep` before a stop and no exec over WebSockets"
        )


async def make_namespace(kubernetes: Kubernetes, fleet: str) -> None:
    """Unless it is there. Raises EngineError where it is on its way out."""
    try:
        there = await kubernetes.find(NAMESPACE, kubernetes.namespace)
    except KubernetesError as error:
        if error.status == 403:
            return  # it was made for who may not look at it: what is missing else is told by what comes next
        raise
    if there is None:
        await kubernetes.create(NAMESPACE, render_namespace(fleet, kubernetes.namespace))
    elif there["metadata"].get("deletionTimestamp"):
        raise EngineError(
            f"the namespace {kubernetes.namespace} is being deleted: wait until it is gone, or name another one "
            "(`namespace` in the file)"
        )


async def install(
    kubernetes: Kubernetes, own: Own, fleet: Fleet, keys: Keys | None, pull: Mapping[str, tuple[str, str]]
) -> None:
    """Makes what is not there yet: keys, accounts, policies, controller; and brings it up to date. `keys` are taken
    where the fleet has none; `pull` has user and password by registry. Raises EngineError."""
    await ensure_keys(kubernetes, own.fleet, keys)
    items = render_installed(own, fleet)
    if pull:
        items.append(render_pull(own.fleet, pull))
    await ensure(kubernetes, own.fleet, items)
    await _prune_policies(kubernetes, own.fleet, {item["metadata"]["name"] for item in items})


async def read_content(kubernetes: Kubernetes, name: str, digest: str) -> bytes | None:
    """What a secret of the fleet's holds; `None` where it is not in the cluster."""
    secret = await kubernetes.find(SECRET, secret_name(name, digest))
    return None if secret is None else base64.b64decode(secret["data"][name])


async def remove_all(kubernetes: Kubernetes, fleet: str, *, data: bool) -> str:
    """What is left of a fleet, its agents included; without `data` the state, the secrets and the claims stay. The
    namespace goes too where it was made for the fleet and nobody else has anything there; gives why it stays then,
    else nothing. Raises EngineError."""
    await kubernetes.delete(DEPLOYMENT, CONTROLLER)
    await wait_gone(kubernetes, POD, {names.FLEET: fleet, names.ROLE: Role.CONTROLLER.value})  # it would make it again
    for kind in REMOVED:
        items, _ = await kubernetes.list(kind, {names.FLEET: fleet})
        for item in items:
            if data or (kind, role_of(item)) not in _KEPT_DATA:
                await kubernetes.delete(kind, item["metadata"]["name"])
    await wait_gone(kubernetes, POD, {names.FLEET: fleet})
    if data:
        for claim in (await kubernetes.list(CLAIM, {names.FLEET: fleet}))[0]:
            await kubernetes.delete(CLAIM, claim["metadata"]["name"])
        await wait_gone(kubernetes, CLAIM, {names.FLEET: fleet})
        return await _remove_namespace(kubernetes, fleet)
    return ""


async def _remove_namespace(kubernetes: Kubernetes, fleet: str) -> str:
    """Gives why it stays, where it was made for the fleet or nobody may look for whom."""
    name = kubernetes.namespace
    try:
        there = await kubernetes.find(NAMESPACE, name)
        if there is None or labels_of(there).get(names.FLEET) != fleet:
            return ""
        if told := str(await find_foreign(kubernetes, fleet)):
            return f"the namespace {name} stays: {told}"
        await kubernetes.delete(NAMESPACE, name)
    except KubernetesError as error:
        if error.status != 403:
            raise
        return (
            f"the namespace {name} stays: {error.said.rstrip('.')}; where it was made for {fleet} alone, let who may "
            f"do it run `kubectl delete namespace {name}`"
        )
    await wait_namespace_gone(kubernetes)
    return ""


async def _prune_policies(kubernetes: Kubernetes, fleet: str, kept: Collection[str]) -> None:
    """Those that no fleet of now needs go once there is no pod any more that they let through."""
    policies, _ = await kubernetes.list(NETWORK_POLICY, {names.FLEET: fleet, names.ROLE: Role.FLEET.value})
    for policy in policies:
        if policy["metadata"]["name"] in kept:
            continue
        selected: Mapping[str, str] = policy["spec"]["podSelector"].get("matchLabels") or {}
        if not await kubernetes.list_metadata(POD, {names.FLEET: fleet, **selected}):
            await kubernetes.delete(NETWORK_POLICY, policy["metadata"]["name"])
