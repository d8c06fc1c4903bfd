"""The controllers of a fleet on the bed's Kubernetes: which one acts, what they wrote, and their ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any

import psutil

from shoal.engines.kubernetes.api import Kind, Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import CONFIG_MAP, DEPLOYMENT, LEASE, POD
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
            while (found := await self.leader()) == than:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return found

    async def acquired_at(self) -> float:
        """Since when the holder has the Lease: epoch seconds."""
        lease = await self.kubernetes.get(LEASE, CONTROLLER)
        return datetime.fromisoformat(lease["spec"]["acquireTime"]).timestamp()

    async def steal(self, holder: str) -> None:
        """As one who edits it by hand."""
        while True:
            lease = await self.kubernetes.get(LEASE, CONTROLLER)
            with contextlib.suppress(KubernetesError):  # renewed meanwhile
                await self.kubernetes.replace(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": holder}})
                return

    async def set_count(self, count: int) -> None:
        """So many of them, which run."""
        await self.kubernetes.patch(DEPLOYMENT, CONTROLLER, {"spec": {"replicas": count}})
        async with asyncio.timeout(PATIENCE_S):
            while True:
                pods, _ = await self.kubernetes.list(POD, {ROLE: Role.CONTROLLER.value})
                if [bool(_container(pod).get("ready")) for pod in pods] == [True] * count:
                    return
                await asyncio.sleep(0.1)

    async def ended_at(self, pod: str) -> float:
        """When the container of one ended, once it has: epoch seconds."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                status = _container(await self.kubernetes.get(POD, pod))
                for state in (status.get("state", {}), status.get("lastState", {})):
                    if "terminated" in state:
                        return datetime.fromisoformat(state["terminated"]["finishedAt"]).timestamp()
                await asyncio.sleep(0.1)

    async def said_before(self, pod: str) -> str:
        """What one wrote until its container ended, once it has."""
        await self.ended_at(pod)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(EngineError):
                    async with aclosing(self.kubernetes.logs(pod, params={"previous": "true"})) as lines:
                        return "\n".join([line async for line in lines])
                await asyncio.sleep(0.2)

    async def kill(self, pod: str) -> None:
        """SIGKILL; and its pod goes too, since Kubernetes lets one that often ends wait longer and longer."""
        signal_to(pod, "KILL")
        await self.kubernetes.delete(POD, pod, grace_s=0)

    @asynccontextmanager
    async def after_writes(self, count: int) -> AsyncGenerator[None]:
        """Ends once Shoal has written so often what its agents are to be, or its own state, since the block began."""
        seen = asyncio.Queue[tuple[str, str, int | str]]()
        versions = {kind: (await self.kubernetes.list(kind))[1] for kind in (DEPLOYMENT, CONFIG_MAP)}
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(self._watch(kind, version, seen)) for kind, version in versions.items()]
            yield
            async with asyncio.timeout(PATIENCE_S):
                written: set[tuple[str, str, int | str]] = set()
                while len(written) < count:
                    written.add(await seen.get())
            for task in watching:
                task.cancel()

    async def _watch(self, kind: Kind, version: str, seen: asyncio.Queue[tuple[str, str, int | str]]) -> None:
        """Each that was written: a status is not ours."""
        async with aclosing(self.kubernetes.watch(kind, {}, version)) as events:
            async for what, item in events:
                if what in ("ADDED", "MODIFIED"):
                    about = item["metadata"]
                    seen.put_nowait((kind.name, about["name"], about.get("generation", about["resourceVersion"])))

    async def _holder(self) -> str:
        lease = await self.kubernetes.get(LEASE, CONTROLLER)
        return lease["spec"].get("holderIdentity", "")


def signal_to(pod: str, name: str) -> None:
    """To the process of a controller, which on the bed is one of this machine."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "shoal.api" in process.cmdline() and process.environ().get("SHOAL_POD") == pod:
                process.send_signal(signal.Signals[f"SIG{name}"])
                return
    raise ProcessLookupError(f"no process of {pod}")


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    statuses: list[dict[str, Any]] = pod.get("status", {}).get("containerStatuses") or [{}]
    return statuses[0]
