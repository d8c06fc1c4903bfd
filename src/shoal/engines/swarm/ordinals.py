"""Identities of stateful agents: a service an ordinal, which comes back where its volumes are, and never has two
holders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.core.action import Scale
from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker
from shoal.engines.swarm.names import Role, fleet_labels, object_name
from shoal.engines.swarm.read import Json, ordinals_in_use, replicas_of
from shoal.engines.swarm.render import Spec, render_ordinal
from shoal.errors import EngineError


class Ordinals:
    """Those of one fleet. On which node an identity has its volumes is kept in a config, as long as the volumes are."""

    def __init__(self, docker: Docker, fleet: str) -> None:
        self._docker, self._fleet = docker, fleet
        self._pins: dict[str, str] | None = None  # by the pin's name: the node's id
        self._reading_pins = asyncio.Lock()

    async def scale(self, revision: Json, action: Scale) -> None:
        """Brings as many identities to the revision as there should be of it. Raises EngineError while an identity
        that is needed may still be held."""
        wanted = {names.FLEET: self._fleet, names.AGENT: action.agent}
        services = await self._docker.services({**wanted, names.ROLE: Role.ORDINAL.value})
        by_ordinal = {int(service["Spec"]["Labels"][names.ORDINAL]): service for service in services}
        ours = [o for o, s in by_ordinal.items() if replicas_of(s) and _revision(s) == action.revision]
        for ordinal in _victims(ours, action):
            await self._docker.update_service(by_ordinal[ordinal]["ID"], _emptied)
        missing = action.count - len(ours)
        if missing <= 0:
            return
        taken = {ordinal for ordinal, service in by_ordinal.items() if replicas_of(service)}
        held = ordinals_in_use(await self._docker.tasks(wanted))
        for ordinal in _free(taken, missing):
            if ordinal in held:
                raise EngineError(
                    f"{action.agent}-{ordinal} may still run: {held[ordinal]['Status']['State']} by the last word of "
                    "its node; it is started anew when that has ended, or the node has left the Swarm"
                )
            await self._start(revision["Spec"], ordinal, by_ordinal.get(ordinal), action.agent)

    async def pin(self, services: Sequence[Json], tasks: Sequence[Json]) -> None:
        """Notes where identities with volumes have come to run, and keeps them there."""
        for service in services:
            labels = service["Spec"]["Labels"]
            if names.role_of(labels) != Role.ORDINAL or _pinned(service) or not _has_volumes(service):
                continue
            node = next((t["NodeID"] for t in tasks if t["ServiceID"] == service["ID"] and _runs(t)), None)
            if node is not None:
                await self._keep(labels[names.AGENT], labels[names.ORDINAL], node)
                await self._docker.update_service(service["ID"], lambda spec, node=node: _pin_to(spec, node))

    async def _start(self, revision: Spec, ordinal: int, there: Json | None, agent: str) -> None:
        node = (await self._known_pins()).get(self._pin_name(agent, str(ordinal)))
        spec = render_ordinal(self._fleet, revision, ordinal, node)
        if there is None:
            await self._docker.create_service(spec)
        else:
            await self._docker.update_service(there["ID"], lambda _: spec)

    async def _keep(self, agent: str, ordinal: str, node: str) -> None:
        name = self._pin_name(agent, ordinal)
        labels = fleet_labels(self._fleet, Role.PIN, agent=agent, ordinal=ordinal, node=node)
        await self._docker.create_config(name, node.encode(), labels)
        (await self._known_pins())[name] = node

    async def _known_pins(self) -> dict[str, str]:
        async with self._reading_pins:
            if self._pins is None:
                found = await self._docker.configs({names.FLEET: self._fleet, names.ROLE: Role.PIN.value})
                self._pins = {each["Spec"]["Name"]: each["Spec"]["Labels"][names.NODE] for each in found}
            return self._pins

    def _pin_name(self, agent: str, ordinal: str) -> str:
        return object_name(self._fleet, "shoal-pin", agent, ordinal)


def _victims(ours: Sequence[int], action: Scale) -> list[int]:
    """The ordinals that go: those that were drained, and of the others the highest."""
    drained = [o for o in ours if any(v.startswith(f"{action.agent}-{o}.") for v in action.victims)]
    others = [o for o in sorted(ours, reverse=True) if o not in drained]
    return [*drained, *others][: max(0, len(ours) - action.count)]


def _free(taken: set[int], number: int) -> list[int]:
    free: list[int] = []
    ordinal = 0
    while len(free) < number:
        if ordinal not in taken:
            free.append(ordinal)
        ordinal += 1
    return free


def _revision(service: Json) -> str:
    return service["Spec"]["Labels"][names.REVISION]


def _emptied(spec: Spec) -> Spec:
    spec["Mode"]["Replicated"]["Replicas"] = 0
    return spec


def _pin_to(spec: Spec, node: str) -> Spec:
    placement = spec["TaskTemplate"].setdefault("Placement", {})
    placement["Constraints"] = [*(placement.get("Constraints") or ()), f"node.id=={node}"]
    return spec


def _pinned(service: Json) -> bool:
    placement: Mapping[str, Any] = service["Spec"]["TaskTemplate"].get("Placement") or {}
    return any(each.startswith("node.id==") for each in placement.get("Constraints") or ())


def _has_volumes(service: Json) -> bool:
    container = service["Spec"]["TaskTemplate"]["ContainerSpec"]
    return any(mount["Type"] == "volume" for mount in container.get("Mounts") or ())


def _runs(task: Json) -> bool:
    return task["Status"]["State"] == "running" and task["DesiredState"] == "running"
