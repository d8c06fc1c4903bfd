"""The controllers of a fleet on a Kubernetes: which one acts, the last words of one that ended, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from contextlib import aclosing
from typing import Any

import psutil

from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import DEPLOYMENT, LEASE, POD
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
            while (found := await self.leader()) == than:  # noqa: ASYNC110 - another process's
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

    async def set_count(self, count: int) -> None:
        """So many of them, which run."""
        await self.kubernetes.patch(DEPLOYMENT, CONTROLLER, {"spec": {"replicas": count}})
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if [bool(_container(pod).get("ready")) for pod in await self._pods()] == [True] * count:
                    return
                await asyncio.sleep(0.1)

    async def names(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in await self._pods()]

    async def steal(self, holder: str) -> None:
        """Gives the Lease to somebody, as one does who edits it."""
        while True:
            lease = await self.kubernetes.get(LEASE, CONTROLLER)
            with contextlib.suppress(KubernetesError):  # renewed meanwhile
                await self.kubernetes.replace(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": holder}})
                return

    async def _pods(self) -> list[dict[str, Any]]:
        return (await self.kubernetes.list(POD, {ROLE: Role.CONTROLLER.value}))[0]

    async def _holder(self) -> str:
        lease = await self.kubernetes.get(LEASE, CONTROLLER)
        return lease["spec"].get("holderIdentity", "")


def signal_to(pod: str, number: signal.Signals) -> None:
    """To the process of a controller, which on the bed is one of this machine."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "shoal.api" in process.cmdline() and process.environ().get("SHOAL_POD") == pod:
                process.send_signal(number)
                return
    raise ProcessLookupError(f"no process of {pod}")


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    statuses: list[dict[str, Any]] = pod.get("status", {}).get("containerStatuses") or [{}]
    return statuses[0]
