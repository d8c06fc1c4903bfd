"""What replicas wrote, as the kubelets keep it: of the pods that there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.names import labels_of
from shoal.engines.kubernetes.read import replica_id
from shoal.engines.kubernetes.render_pod import CONTAINER
from shoal.engines.kubernetes.times import epoch_s
from shoal.engines.log_gathering import gathered
from shoal.engines.protocol import LogLine
from shoal.errors import EngineError

LAST_LINES = 20
_LOOK_S = 1.0  # for pods that came since
_TICK_S = 1e-6  # what was written by then was told
_AT_ONCE = 16

Object = Mapping[str, Any]


class Logs:
    """Those of one fleet."""

    def __init__(self, kubernetes: Kubernetes, fleet: str) -> None:
        self._kubernetes, self._fleet = kubernetes, fleet

    async def read(
        self, agents: Sequence[str], since: float | None, tail: int | None, until: float | None = None
    ) -> list[LogLine]:
        """What was written before `until`, or now, by time; of each pod the last `tail` lines. A pod that can't be read
        says so in a line of its own."""
        slots = asyncio.Semaphore(_AT_ONCE)
        lines: list[LogLine] = []

        async def read(pod: Object) -> None:
            try:
                async with slots, aclosing(self._lines(pod, follow=False, since=since, tail=tail)) as found:
                    lines.extend([line async for line in found if until is None or (line.at or 0.0) < until])
            except EngineError as error:
                lines.append(LogLine(_name(pod), labels_of(pod)[names.AGENT], f"not read: {error}", "stderr", until))

        pods = await self._pods(agents)
        async with asyncio.TaskGroup() as tasks:
            for pod in pods:
                tasks.create_task(read(pod))
        return sorted(lines, key=lambda line: line.at or 0.0)

    async def follow(self, agents: Sequence[str], since: float) -> AsyncGenerator[LogLine]:
        """What is written from then on, in pods too that come later."""
        async with aclosing(gathered(lambda queue, tasks: self._find(agents, since, queue, tasks))) as lines:
            async for line in lines:
                yield line

    async def _find(
        self, agents: Sequence[str], since: float, queue: asyncio.Queue[LogLine], tasks: asyncio.TaskGroup
    ) -> None:
        readers: dict[str, asyncio.Task[None]] = {}
        over: set[str] = set()  # had ended when their last reader began, so that it reads the rest
        told: dict[str, float] = {}  # by pod: the time of the last line
        try:
            while True:
                pods: list[dict[str, Any]] = []
                with suppress(EngineError):  # the API server is back one day
                    pods = await self._pods(agents)
                there = {pod["metadata"]["uid"] for pod in pods}
                readers = {uid: reader for uid, reader in readers.items() if uid in there or not reader.done()}
                for pod in pods:
                    uid = pod["metadata"]["uid"]
                    if uid in over or (uid in readers and not readers[uid].done()):
                        continue
                    if pod["status"].get("phase") in ("Succeeded", "Failed"):
                        over.add(uid)
                    readers[uid] = tasks.create_task(self._copy(pod, told.get(uid, since), queue, told))
                await asyncio.sleep(_LOOK_S)
        finally:
            for reader in readers.values():
                reader.cancel()

    async def _copy(self, pod: Object, since: float, queue: asyncio.Queue[LogLine], told: dict[str, float]) -> None:
        with suppress(EngineError):  # the next look finds the pod again, if it is there
            async with aclosing(self._lines(pod, follow=True, since=since, tail=None)) as lines:
                async for line in lines:
                    told[pod["metadata"]["uid"]] = (line.at or since) + _TICK_S
                    await queue.put(line)

    async def _lines(
        self, pod: Object, *, follow: bool, since: float | None, tail: int | None
    ) -> AsyncGenerator[LogLine]:
        params = {"timestamps": "true", "container": CONTAINER}
        if since is not None:
            params["sinceTime"] = datetime.fromtimestamp(since, UTC).isoformat(timespec="microseconds")
        if tail is not None:
            params["tailLines"] = str(tail)
        agent, replica = labels_of(pod)[names.AGENT], _name(pod)
        try:
            async with aclosing(self._kubernetes.logs(pod["metadata"]["name"], params=params, follow=follow)) as lines:
                async for line in lines:
                    at, text = parse_line(line)
                    if since is None or at is None or at >= since:  # the API counts whole seconds
                        yield LogLine(replica, agent, text, at=at)
        except KubernetesError as error:
            if error.status not in (400, 404):  # not started yet, or gone meanwhile
                raise

    async def _pods(self, agents: Sequence[str]) -> list[dict[str, Any]]:
        found, _ = await self._kubernetes.list(POD, {names.FLEET: self._fleet})
        return [pod for pod in found if labels_of(pod).get(names.AGENT) in agents]


def _name(pod: Object) -> str:
    """Of whoever wrote: the replica or the run."""
    return labels_of(pod).get(names.RUN) or replica_id(pod)


def parse_line(line: str) -> tuple[float | None, str]:
    """A line with its time before it, in the time zone of the node."""
    stamp, _, text = line.partition(" ")
    try:
        return epoch_s(stamp), text
    except ValueError:
        return None, line
