"""What has to be in a namespace before a fleet's controller can run there.

The command line does this, with the rights that a person has: from then on the controller acts, with few rights of its
own, and has no other keys than those that it finds here.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager

from shoal.core.broker import broker_users
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import NAMESPACE, NETWORK_POLICY, POD, SECRET
from shoal.engines.kubernetes.applying import ensure, try_out
from shoal.engines.kubernetes.names import Role, secret_name
from shoal.engines.kubernetes.own_keys import Keys, ensure_keys
from shoal.engines.kubernetes.platform import claims_of_broker
from shoal.engines.kubernetes.render_fleet import render_installed
from shoal.engines.kubernetes.render_own import Own, render_broker, render_gateway, render_namespace
from shoal.engines.kubernetes.render_pod import Object
from shoal.engines.kubernetes.render_pull import render_pull
from shoal.engines.kubernetes.wiring import render_broker_secret, unknown_password
from shoal.errors import EngineError
from shoal.spec.model import Fleet

OLDEST = (1, 30)


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
    if there is None:  # several may make it at once
        await kubernetes.make(NAMESPACE, render_namespace(fleet, kubernetes.namespace))
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
    items = _render(own, fleet, pull)
    await ensure(kubernetes, own.fleet, items)
    await _prune_policies(kubernetes, own.fleet, {item["metadata"]["name"] for item in items})


async def try_install(kubernetes: Kubernetes, own: Own, fleet: Fleet, pull: Mapping[str, tuple[str, str]]) -> None:
    """Raises EngineError where `install` would be refused, as far as that can be told before; nothing is changed."""
    await check_version(kubernetes)
    await try_out(kubernetes, own.fleet, _render(own, fleet, pull))
    with _made_by_the_controller():
        await try_out(kubernetes, own.fleet, render_gateway(own))
    if broker_users(fleet):
        with _made_by_the_controller():
            configuration = render_broker_secret(fleet, unknown_password)["metadata"]["name"]  # a stand-in
            broker = render_broker(own, configuration, await claims_of_broker(kubernetes))
            await try_out(kubernetes, own.fleet, broker)


@contextmanager
def _made_by_the_controller() -> Generator[None]:
    """By rights of its own: whoever lacks them is not refused for that."""
    try:
        yield
    except KubernetesError as error:
        if not error.lacks_right:
            raise


def _render(own: Own, fleet: Fleet, pull: Mapping[str, tuple[str, str]]) -> list[Object]:
    return [*render_installed(own, fleet), *([render_pull(own.fleet, pull)] if pull else [])]


async def read_content(kubernetes: Kubernetes, name: str, digest: str) -> bytes | None:
    """What a secret of the fleet's holds; `None` where it is not in the cluster."""
    secret = await kubernetes.find(SECRET, secret_name(name, digest))
    return None if secret is None else base64.b64decode(secret["data"][name])


async def _prune_policies(kubernetes: Kubernetes, fleet: str, kept: Collection[str]) -> None:
    """Those that no fleet of now needs go once there is no pod any more that they let through."""
    policies, _ = await kubernetes.list(NETWORK_POLICY, {names.FLEET: fleet, names.ROLE: Role.FLEET.value})
    for policy in policies:
        if policy["metadata"]["name"] in kept:
            continue
        selected: Mapping[str, str] = policy["spec"]["podSelector"].get("matchLabels") or {}
        if not await kubernetes.list_metadata(POD, {names.FLEET: fleet, **selected}):
            await kubernetes.delete(NETWORK_POLICY, policy["metadata"]["name"])
