"""How all of a fleet goes from a Swarm again, its volumes on the nodes included. Whatever is away can't hold it up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker, DockerError
from shoal.engines.swarm.install import find_own
from shoal.engines.swarm.names import Role, own_name
from shoal.engines.swarm.platform import takes_tasks
from shoal.engines.swarm.read import BROKEN
from shoal.engines.swarm.render_own import Own, render_sweep
from shoal.engines.swarm.waiting import GONE_S, LOOK_S, wait_ended
from shoal.errors import EngineError

_SWEPT_S = 60.0


async def remove_all(docker: Docker, fleet: str, *, data: bool) -> None:
    """What is left of a fleet, its agents included. Without `data` the state stays, the volumes, and on which nodes
    they are. Raises EngineError where a task does not end, or a volume can't go."""
    wanted = {names.FLEET: fleet}
    kept = () if data else (Role.STATE.value,)
    own = await find_own(docker, fleet)
    await docker.remove_service(own_name(fleet, Role.CONTROLLER.value))
    await wait_ended(docker, {**wanted, names.ROLE: Role.CONTROLLER.value})  # it would make again what goes
    for service in await docker.services(wanted):
        if names.role_of(service["Spec"]["Labels"]) not in kept:
            await docker.remove_service(service["ID"])
    await wait_ended(docker, wanted)
    if data:
        if own.image:  # noted before anything that has volumes is started, and forgotten once they are gone
            await _sweep(docker, own)
        for secret in await docker.secrets(wanted):
            await docker.remove_secret(secret["ID"])
        for config in await docker.configs(wanted):
            await docker.remove_config(config["ID"])
    for network in await docker.networks(wanted):
        await _remove_network(docker, network)


async def _sweep(docker: Docker, own: Own) -> None:
    """Removes the volumes from all nodes that can be reached."""
    service = await docker.create_service(render_sweep(own))
    try:
        nodes = {node["ID"]: node["Description"]["Hostname"] for node in await docker.nodes() if takes_tasks(node)}
        async with asyncio.timeout(_SWEPT_S):
            while nodes.keys() - (swept := await _swept(docker, service)).keys():  # noqa: ASYNC110 - Swarm tells nobody
                await asyncio.sleep(LOOK_S)
        if failed := {node: why for node, why in swept.items() if why}:
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
    await wait_ended(docker, {names.FLEET: own.fleet})


async def _swept(docker: Docker, service: str) -> dict[str, str]:
    """By node why the task there failed, of those that have ended; empty for one that did not."""
    found: dict[str, str] = {}
    for task in await docker.tasks(service=service):
        if task["Status"]["State"] in BROKEN:
            found[task["NodeID"]] = task["Status"].get("Err") or task["Status"]["State"]
        elif task["Status"]["State"] == "complete":
            found[task["NodeID"]] = ""
    return found


async def _remove_network(docker: Docker, network: Mapping[str, Any]) -> None:
    """It can go only when the last task has left it on every node, which takes a moment after their end."""
    error: DockerError | None = None
    try:
        async with asyncio.timeout(GONE_S):
            while True:
                try:
                    await docker.remove_network(network["Id"])
                except DockerError as refusal:
                    error = refusal
                    await asyncio.sleep(LOOK_S)
                else:
                    return
    except TimeoutError:
        raise EngineError(
            f"the network {network['Name']} can't be removed within {GONE_S:g} s: {error}; `shoal down` tries again"
        ) from error
