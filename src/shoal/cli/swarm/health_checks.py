"""The checks of `shoal doctor` for a fleet on Docker Swarm; none of them changes anything."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from shoal import __version__
from shoal.cli.findings import Finding
from shoal.cli.swarm.place import SwarmPlace
from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker, DockerError
from shoal.engines.swarm.docker.refusals import remedy_for
from shoal.errors import EngineError, ShoalError
from shoal.spec.model import Fleet
from shoal.spec.registries import registry_of

Json = Mapping[str, Any]


async def check_swarm(place: SwarmPlace, fleet: Fleet) -> list[Finding]:
    """All of them, as far as what comes before lets them look."""
    try:
        async with place.docker() as docker:
            found = await _check_docker(docker)
            if found[-1].result != "failure":
                nodes = await docker.nodes()
                found += [
                    *check_managers(nodes),
                    check_nodes(nodes),
                    *check_ports(await docker.services(), fleet),
                    await check_images(docker, fleet),
                ]
    except EngineError as error:
        return [Finding("docker", "failure", str(error))]
    return [*found, await _check_controller(place)]


async def _check_docker(docker: Docker) -> list[Finding]:
    """Who answers, and whether he may manage a Swarm."""
    version, info = await docker.api_version(), await docker.info()
    found = [Finding("docker", "ok", f"{info['ServerVersion']} at {docker.endpoint.host}, Engine API {version}")]
    swarm: Json = info.get("Swarm") or {}
    if swarm.get("ControlAvailable"):
        return [*found, Finding("manager", "ok", f"{info.get('Name', 'this node')} manages the Swarm")]
    if swarm.get("LocalNodeState") == "active":
        others: Sequence[Json] = swarm.get("RemoteManagers") or ()
        managers = ", ".join(str(each["Addr"]) for each in others)
        remedy = f"name one of its managers by DOCKER_HOST or a Docker context{f': {managers}' if managers else ''}"
        return [*found, Finding("manager", "failure", "this node is a worker of its Swarm", remedy)]
    return [*found, Finding("manager", "failure", "this node is in no Swarm", remedy_for("not a swarm manager"))]


def check_managers(nodes: Sequence[Json]) -> Iterator[Finding]:
    """Of how many the Swarm can lose one."""
    managers = [node["ManagerStatus"] for node in nodes if node.get("ManagerStatus")]
    away = [str(each.get("Addr")) for each in managers if each.get("Reachability") != "reachable"]
    spare = (len(managers) - 1) // 2 - len(away)
    if away:
        words = f"{len(away)} of {len(managers)} can't be reached: {', '.join(away)}"
        yield Finding("managers", "warning", words, f"start them again; {max(0, spare)} more may be lost")
    elif not spare:
        words = "while it is away" if len(managers) == 1 else "while one of them is away"
        remedy = f"{words} nothing can be changed; with three one may be lost (`docker node promote NODE`)"
        yield Finding("managers", "note", f"{len(managers)}", remedy)
    else:
        yield Finding("managers", "ok", f"{len(managers)}, of which {spare} may be lost")


def check_nodes(nodes: Sequence[Json]) -> Finding:
    """Who takes tasks."""
    down = [_name(node) for node in nodes if node["Status"]["State"] != "ready"]
    idle = [_name(node) for node in nodes if node["Spec"]["Availability"] != "active"]
    if down:
        remedy = "start them again, or take them out: `docker node rm NODE`"
        return Finding("nodes", "warning", f"{len(down)} of {len(nodes)} are down: {', '.join(down)}", remedy)
    left = f", {', '.join(idle)} takes no tasks" if idle else ""
    return Finding("nodes", "ok", f"{len(nodes)} ready{left}")


def check_ports(services: Sequence[Json], fleet: Fleet) -> Iterator[Finding]:
    """Whether another service has them on the nodes."""
    theirs = {str(each["Spec"]["Name"]): _ports(each) for each in services if not _is_of(each, fleet.fleet)}
    for key, port in (("port", fleet.swarm.port), ("admin_port", fleet.swarm.admin_port)):
        taken = [name for name, ports in theirs.items() if port in ports]
        if taken:
            remedy = f"set swarm.{key} to another one, or remove that service"
            yield Finding(key, "failure", f"the service {taken[0]} has {port}", remedy)
        else:
            yield Finding(key, "ok", f"no other service has {port}")


async def check_images(docker: Docker, fleet: Fleet) -> Finding:
    """Which this manager has. What the other nodes have nobody can ask them."""
    own = fleet.swarm.image or f"shoal:{__version__}"
    wanted = dict.fromkeys([own, *(agent.image for agent in fleet.agents.values() if agent.image is not None)])
    missing = [image for image in wanted if not await _has(docker, image)]
    if not missing:
        return Finding("images", "ok", f"this manager has all {len(wanted)}; each other node needs them too")
    return Finding("images", "note", f"not on this manager: {', '.join(missing)}", _how_pulled(missing, fleet))


def _how_pulled(images: Collection[str], fleet: Fleet) -> str:
    registries = sorted({registry_of(image) for image in images if not image.startswith("sha256:")})
    if not registries:
        return "nobody can pull by an id: load them on each node (`docker save` and `docker load`)"
    unknown = [registry for registry in registries if registry not in fleet.registries]
    if not unknown:
        return f"each node pulls them from {', '.join(registries)}, with what `registries` says"
    return (
        f"each node has to have them, or to pull them from {', '.join(unknown)} without a password (with one: name it "
        "under `registries`)"
    )


async def _has(docker: Docker, image: str) -> bool:
    try:
        await docker.image(image)
    except DockerError as error:
        if error.status != 404:
            raise
        return False
    return True


async def _check_controller(place: SwarmPlace) -> Finding:
    try:
        status = await place.client().status()
    except ShoalError as error:
        return Finding("controller", "note", str(error))
    if status.version != __version__:
        remedy = "`shoal up` replaces it"
        return Finding("controller", "note", f"answers, Shoal {status.version}; this is {__version__}", remedy)
    return Finding("controller", "ok", f"answers, Shoal {status.version}")


def _is_of(service: Json, fleet: str) -> bool:
    labels: Mapping[str, str] = service["Spec"].get("Labels") or {}
    return labels.get(names.FLEET) == fleet


def _ports(service: Json) -> set[int]:
    endpoint: Json = service.get("Endpoint") or {}
    published: Sequence[Json] = endpoint.get("Ports") or ()
    return {int(each["PublishedPort"]) for each in published if "PublishedPort" in each}


def _name(node: Json) -> str:
    return str(node["Description"]["Hostname"])
