"""The Secrets of agents' private variables, kept as they have to be without asking for each.

A Deployment is never applied again, and names its Secret by the revision: whoever made the Deployment, the Secret is
there once the controller knows what it holds, and holds the passwords of now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import SECRET
from shoal.engines.kubernetes.names import Role
from shoal.engines.kubernetes.render_own import noted
from shoal.engines.kubernetes.render_pod import Object, wiring_name


class PrivateSecrets:
    """Of one fleet; `told` hears of each Secret that is made or changed. Methods may raise EngineError."""

    def __init__(self, kubernetes: Kubernetes, fleet: str, told: Callable[[Object], None]) -> None:
        self._kubernetes, self._fleet, self._told = kubernetes, fleet, told
        self._lock = asyncio.Lock()
        self._there: dict[str, tuple[str, str]] | None = None  # by name the agent, and the hash of what was applied

    async def ensure(self, item: Object, *, missed: bool = False) -> None:
        """Makes it, or brings it to what it has to hold. `missed`: a pod says that it is not there."""
        wanted = noted(item)
        name, there = wanted["metadata"]["name"], await self._listed()
        if missed:
            there.pop(name, None)
        if there.get(name) != _known(wanted["metadata"]):
            self._told(wanted)  # before anybody can write what it holds into his log
            # Made where it is not known: that costs the API server less than to look for owners of fields.
            if name in there or await self._kubernetes.make(SECRET, wanted) is None:
                await self._kubernetes.apply(SECRET, wanted, force=True)
            there[name] = _known(wanted["metadata"])

    async def remove(self, agent: str, revision: str | None) -> None:
        """That of a revision, or with `None` all of the agent."""
        there = await self._listed()
        only = wiring_name(agent, revision) if revision is not None else None
        for name in [name for name, (whose, _) in there.items() if whose == agent and only in (None, name)]:
            await self._kubernetes.delete(SECRET, name)
            there.pop(name, None)

    async def _listed(self) -> dict[str, tuple[str, str]]:
        async with self._lock:
            if self._there is None:
                ours = {names.FLEET: self._fleet, names.ROLE: Role.SECRET.value}
                found = [each["metadata"] for each in await self._kubernetes.list_metadata(SECRET, ours)]
                self._there = {each["name"]: _known(each) for each in found if names.AGENT in each["labels"]}
            return self._there


def _known(metadata: Mapping[str, Any]) -> tuple[str, str]:
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    return metadata["labels"][names.AGENT], annotations.get(names.CONTENT, "")
