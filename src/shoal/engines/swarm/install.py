"""What has to be on a Swarm before a fleet's controller can run there, and how all of it goes again.

The command line does this, with the rights that a person has: from then on the controller acts, and has no other keys
than those that it finds here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker, DockerError
from shoal.engines.swarm.names import Role, fleet_labels, object_name, own_name
from shoal.engines.swarm.platform import ensure_service, takes_tasks
from shoal.engines.swarm.render_own import Own, render_controller, render_sweep
from shoal.errors import EngineError

_GONE_S = 60.0
_LOOK_S = 0.2
_SWEPT_S = 60.0
_BROKEN = ("failed", "rejected", "orphaned")
_SECRETS = ("ca-key", "join-token", "seed")
_AUTHORITY = "shoal.authority"  # by the hash of its certificate


@dataclass(frozen=True, slots=True)
class Keys:
    """A fleet's own keys, as they are made by whoever starts it first."""

    ca_certificate: bytes
    ca_key: bytes
    join_token: bytes


async def find_keys(docker: Docker, fleet: str) -> bytes | None:
    """The certificate of the fleet's authority, where it has one already: what else there is can't be read back."""
    found = await _configs(docker, fleet)
    return None if "ca" not in found else await read_config(docker, found["ca"]["ID"])


async def install(docker: Docker, fleet: str, image: str, admin_port: int, keys: Keys | None) -> Own:
    """Makes what is not there yet: the network, the keys, the controller, and starts that anew where its image, its
    port, or what the fleet's secrets hold is another. `keys` are taken where the fleet has none. Raises EngineError."""
    network = await docker.create_network(fleet, fleet_labels(fleet, Role.NETWORK))
    if keys is not None:
        await _put_keys(docker, fleet, keys)
    own = replace(await find_own(docker, fleet), image=image, network=network)
    if missing := [each for each in (*_SECRETS, "ca") if each not in own.called]:
        raise EngineError(
            f"the Swarm has only a part of the keys of fleet {fleet} ({', '.join(missing)} missing); `shoal down` ends "
            "what is left of it, `shoal up` makes all anew"
        )
    found = await docker.secrets({names.FLEET: fleet})
    contents = {each["Spec"]["Name"]: each["ID"] for each in found if names.DIGEST in each["Spec"]["Labels"]}
    before = await _controllers(docker, fleet)
    if await ensure_service(docker, render_controller(own, admin_port, contents)):
        await _wait_replaced(docker, fleet, before)
    return own


async def find_own(docker: Docker, fleet: str) -> Own:
    """What was installed, as the controller finds it: its image is that of its own service."""
    configs = await _configs(docker, fleet)
    digest = configs["ca"]["Spec"]["Labels"][_AUTHORITY] if "ca" in configs else ""
    found = {each["Spec"]["Name"]: each["ID"] for each in await docker.secrets({names.FLEET: fleet})}
    keys = {what: name for what in _SECRETS if (name := _key_name(fleet, what, digest)) in found}
    networks = await docker.networks({names.FLEET: fleet})
    return Own(
        fleet=fleet,
        image=await _image(docker, fleet),
        network=networks[0]["Id"] if networks else "",
        secrets={what: found[name] for what, name in keys.items()},
        configs={what: config["ID"] for what, config in configs.items()},
        called={**keys, **{what: config["Spec"]["Name"] for what, config in configs.items()}},
    )


async def remove_all(docker: Docker, fleet: str, image: str, *, data: bool) -> None:
    """What is left of a fleet, its agents included. Without `data` the state stays, the volumes, and on which nodes
    they are. `image` is Shoal's, for a fleet that has no controller to tell. Raises EngineError where a task does not
    end, or a volume can't go."""
    wanted = {names.FLEET: fleet}
    kept = () if data else (Role.STATE.value,)
    image = await _image(docker, fleet) or image
    await docker.remove_service(own_name(fleet, Role.CONTROLLER.value))
    await _wait_ended(docker, {**wanted, names.ROLE: Role.CONTROLLER.value})  # it would make again what goes
    for service in await docker.services(wanted):
        if names.role_of(service["Spec"]["Labels"]) not in kept:
            await docker.remove_service(service["ID"])
    await _wait_ended(docker, wanted)
    if data:
        await _sweep(docker, Own(fleet, image, ""))
        for secret in await docker.secrets(wanted):
            await docker.remove_secret(secret["ID"])
        for config in await docker.configs(wanted):
            await docker.remove_config(config["ID"])
    for network in await docker.networks(wanted):
        await _remove_network(docker, network["Id"])


async def _sweep(docker: Docker, own: Own) -> None:
    """Removes the volumes from all nodes that can be reached."""
    service = await docker.create_service(render_sweep(own))
    try:
        nodes = {node["ID"]: node["Description"]["Hostname"] for node in await docker.nodes() if takes_tasks(node)}
        async with asyncio.timeout(_SWEPT_S):
            while (ended := await _ended(docker, service)).keys() < nodes.keys():  # noqa: ASYNC110 - Swarm tells nobody
                await asyncio.sleep(_LOOK_S)
        if failed := {node: why for node, why in ended.items() if why}:
            words = [line.text async for line in docker.service_logs(service)]
            said = "".join(f"\n  {word}" for word in (*failed.values(), *words))
            where = ", ".join(sorted(nodes.get(node, node) for node in failed))
            raise EngineError(f"not all volumes of {own.fleet} could be removed from {where}:{said}")
    except TimeoutError:
        raise EngineError(
            f"the volumes of {own.fleet} were not removed within {_SWEPT_S:g} s; `docker service ps "
            f"{own_name(own.fleet, Role.SWEEP.value)}` says why, `shoal down --volumes` tries again"
        ) from None
    await docker.remove_service(service)
    await _wait_ended(docker, {names.FLEET: own.fleet})


async def _ended(docker: Docker, service: str) -> dict[str, str]:
    """By node why the task there failed, of those that have ended; empty for one that did not."""
    found: dict[str, str] = {}
    for task in await docker.tasks(service=service):
        if task["Status"]["State"] in _BROKEN:
            found[task["NodeID"]] = task["Status"].get("Err") or task["Status"]["State"]
        elif task["Status"]["State"] == "complete":
            found[task["NodeID"]] = ""
    return found


async def read_config(docker: Docker, key: str) -> bytes:
    """What a config holds."""
    return base64.b64decode((await docker.config(key))["Spec"]["Data"])


async def _put_keys(docker: Docker, fleet: str, keys: Keys) -> None:
    """The certificate comes last, and says which of the secrets are its own: of several who start a fleet at once, or
    break off while they do, the one counts whose certificate is there."""
    digest = hashlib.sha256(keys.ca_certificate).hexdigest()[:12]
    contents = {"ca-key": keys.ca_key, "join-token": keys.join_token, "seed": secrets.token_bytes(32)}
    for what, content in contents.items():
        await docker.create_secret(_key_name(fleet, what, digest), content, fleet_labels(fleet, Role.SECRET))
    labels = {**fleet_labels(fleet, Role.CONFIG, key="ca"), _AUTHORITY: digest}
    await docker.create_config(own_name(fleet, "ca"), keys.ca_certificate, labels)


def _key_name(fleet: str, what: str, digest: str) -> str:
    return object_name(fleet, f"shoal-{what}", digest)


async def _configs(docker: Docker, fleet: str) -> Mapping[str, dict[str, Any]]:
    found = await docker.configs({names.FLEET: fleet})
    return {key: each for each in found if (key := each["Spec"]["Labels"].get("shoal.key")) is not None}


async def _image(docker: Docker, fleet: str) -> str:
    try:
        service = await docker.service(own_name(fleet, Role.CONTROLLER.value))
    except DockerError as error:
        if error.status == 404:
            return ""
        raise
    return service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]


async def _remove_network(docker: Docker, key: str) -> None:
    """It can go only when the last task has left it on every node, which takes a moment after their end."""
    async with asyncio.timeout(_GONE_S):
        while True:
            try:
                await docker.remove_network(key)
            except DockerError as error:
                if error.status == 404:
                    return
                await asyncio.sleep(_LOOK_S)
            else:
                return


async def _wait_ended(docker: Docker, wanted: Mapping[str, str]) -> None:
    async with asyncio.timeout(_GONE_S):
        while any(_lives(task) for task in await docker.tasks(wanted)):  # noqa: ASYNC110 - Swarm tells nobody
            await asyncio.sleep(_LOOK_S)


async def _controllers(docker: Docker, fleet: str) -> frozenset[str]:
    """The tasks of the controller that live."""
    wanted = {names.FLEET: fleet, names.ROLE: Role.CONTROLLER.value}
    return frozenset(task["ID"] for task in await docker.tasks(wanted) if _lives(task))


async def _wait_replaced(docker: Docker, fleet: str, before: frozenset[str]) -> None:
    """Until the controller of before has ended: whoever asks from now on asks the new one."""
    async with asyncio.timeout(_GONE_S):
        while before & await _controllers(docker, fleet):  # noqa: ASYNC110 - Swarm tells nobody
            await asyncio.sleep(_LOOK_S)


def _lives(task: Mapping[str, Any]) -> bool:
    return task["Status"]["State"] in ("starting", "running", "preparing")
