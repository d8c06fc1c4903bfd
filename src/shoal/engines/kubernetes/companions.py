"""What an agent has in the cluster beside what its replicas are made from: the Service by which identities have names,
and the budget by which a drained node takes one replica at a time.

Who removed one finds it made again, and what was changed of one is put back when its revision is ensured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import DISRUPTION_BUDGET, SERVICE
from shoal.engines.kubernetes.applying import find_ours
from shoal.engines.kubernetes.drift import drift_of
from shoal.engines.kubernetes.inventory import Inventory
from shoal.engines.kubernetes.names import labels_of
from shoal.engines.kubernetes.render import render_budget, render_governing
from shoal.engines.kubernetes.render_pod import CONTAINER


class Companions:
    """Of one fleet's agents. Methods may raise EngineError."""

    def __init__(self, kubernetes: Kubernetes, fleet: str, inventory: Inventory) -> None:
        self._kubernetes, self._fleet, self._inventory = kubernetes, fleet, inventory

    async def keep(self, agent: str) -> None:
        """Brings them to what the agent needs as it is in the cluster."""
        parts = self._inventory.parts(agent)
        for item in parts.stateful_sets:
            await self.govern(agent, item["spec"]["template"])
        if parts.several:
            await self.budget(agent)

    async def govern(self, agent: str, pod: Mapping[str, Any]) -> None:
        """Sees to the Service of a stateful agent; `pod` is what its replicas are made from."""
        ports = next(each for each in pod["spec"]["containers"] if each["name"] == CONTAINER).get("ports")
        wanted = render_governing(self._fleet, agent, ports[0]["containerPort"] if ports else None)
        there = self._inventory.item(SERVICE, agent)
        if there is None:
            await find_ours(self._kubernetes, self._fleet, wanted)
        if there is None or drift_of(wanted, there):
            self._inventory.put(SERVICE, await self._kubernetes.apply(SERVICE, wanted, force=True))

    async def budget(self, agent: str) -> None:
        """Sees to that of an agent with more than one replica. One of that name that somebody else made stands for
        ours: a pod with two is never drained."""
        wanted, there = render_budget(self._fleet, agent), self._inventory.item(DISRUPTION_BUDGET, agent)
        if there is None:
            made = await self._kubernetes.make(DISRUPTION_BUDGET, wanted)
            there = made or await self._kubernetes.find(DISRUPTION_BUDGET, agent)
            if there is not None:
                self._inventory.put(DISRUPTION_BUDGET, there)
        elif self._is_ours(there) and drift_of(wanted, there):
            self._inventory.put(DISRUPTION_BUDGET, await self._kubernetes.apply(DISRUPTION_BUDGET, wanted, force=True))

    async def remove(self, agent: str) -> None:
        """With the agent; what is not ours stays."""
        for kind in (SERVICE, DISRUPTION_BUDGET):
            there = self._inventory.item(kind, agent)
            if there is not None and self._is_ours(there):
                await self._kubernetes.delete(kind, agent)
                self._inventory.drop(kind, agent)

    def _is_ours(self, item: Mapping[str, Any]) -> bool:
        return labels_of(item).get(names.FLEET) == self._fleet
