"""The controllers of a fleet on a Kubernetes: which one acts, and the last words of one that ended."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing

from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kinds import LEASE, POD
from shoal.engines.kubernetes.names import CONTROLLER, LEADER, ROLE, Role
from shoal.errors import EngineError

PATIENCE_S = 60.0


class Controllers:
    """In the namespace of `kubernetes`."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.kubernetes = kubernetes

    async def leader(self) -> str:
        """The one that has the Lease and the label, and no other has it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(EngineError):
                    pods, _ = await self.kubernetes.list(POD, {ROLE: Role.CONTROLLER.value, LEADER: "true"})
                    names = [pod["metadata"]["name"] for pod in pods]
                    if names == [await self._holder()]:
                        return names[0]
                await asyncio.sleep(0.1)

    async def another_leader(self, than: str) -> str:
        async with asyncio.timeout(PATIENCE_S):
            while (found := await self.leader()) == than:
                await asyncio.sleep(0.1)
        return found

    async def said_before(self, pod: str) -> str:
        """What one wrote until its container ended, once it has."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(EngineError):  # there is none before this one yet
                    async with aclosing(self.kubernetes.logs(pod, params={"previous": "true"})) as lines:
                        return "\n".join([line async for line in lines])
                await asyncio.sleep(0.2)

    async def _holder(self) -> str:
        lease = await self.kubernetes.get(LEASE, CONTROLLER)
        return lease["spec"].get("holderIdentity", "")
