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
from shoal.engines.kubernetes.read import epoch_s, replica_id
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

    async def read(self, agents: Sequence[str], since: float | None, tail: int | None) -> list[LogLine]:
        """What was written until now, by time; of each pod the last `tail` lines."""
        slots = asyncio.Semaphore(_AT_ONCE)
        lines: list[LogLine] = []

        async def read(pod: Object) -> None:
            async with slots, aclosing(self._lines(pod, follow=False, since=since, tail=tail)) as found:
                lines.extend([line async for line in found])

        async with asyncio.TaskGroup() as tasks:
            for pod in await self._pods(agents):
                tasks.create_task(read(pod))
        return sorted(lines, key=lambda line: line.at or 0.0)

    async def follow(self, agents: Sequence[str], since: float) -> AsyncGenerator[LogLine]:
        """What is written from then on, in pods too that come later."""
        queue: asyncio.Queue[LogLine] = asyncio.Queue(1000)
        async with asyncio.TaskGroup() as tasks:
            finder = tasks.create_task(self._find(agents, since, queue, tasks))
            try:
                with suppress(GeneratorExit):  # a group would make an error of it
                    while True:
                        yield await queue.get()
            finally:
                finder.cancel()

    async def _find(
        self, agents: Sequence[str], since: float, queue: asyncio.Queue[LogLine], tasks: asyncio.TaskGroup
    ) -> None:
        readers: dict[str, asyncio.Task[None]] = {}
        told: dict[str, float] = {}  # by pod: the time of the last line
        try:
            while True:
                for pod in await self._pods(agents):
                    name = pod["metadata"]["name"]
                    if name not in readers or (readers[name].done() and _runs(pod)):
                        reader = self._copy(pod, told.get(name, since), queue, told)
                        readers[name] = tasks.create_task(reader)
                await asyncio.sleep(_LOOK_S)
        finally:
            for reader in readers.values():
                reader.cancel()

    async def _copy(self, pod: Object, since: float, queue: asyncio.Queue[LogLine], told: dict[str, float]) -> None:
        async with aclosing(self._lines(pod, follow=True, since=since, tail=None)) as lines:
            async for line in lines:
                told[pod["metadata"]["name"]] = (line.at or since) + _TICK_S
                await queue.put(line)

    async def _lines(
        self, pod: Object, *, follow: bool, since: float | None, tail: int | None
    ) -> AsyncGenerator[LogLine]:
        params = {"timestamps": "true"}
        if since is not None:
            params["sinceTime"] = datetime.fromtimestamp(since, UTC).isoformat(timespec="microseconds")
        if tail is not None:
            params["tailLines"] = str(tail)
        agent, replica = labels_of(pod)[names.AGENT], labels_of(pod).get(names.RUN) or replica_id(pod)
        name = pod["metadata"]["name"]
        try:
            async with aclosing(self._kubernetes.logs(name, params=params, follow=follow)) as lines:
                async for line in lines:
                    at, text = _parse(line)
                    if since is None or at is None or at >= since:  # the API counts whole seconds
                        yield LogLine(replica, agent, text, at=at)
        except KubernetesError as error:
            if error.status not in (400, 404):  # not started yet, or gone meanwhile
                raise

    async def _pods(self, agents: Sequence[str]) -> list[dict[str, Any]]:
        found, _ = await self._kubernetes.list(POD, {names.FLEET: self._fleet})
        return [pod for pod in found if labels_of(pod).get(names.AGENT) in agents]


async def last_words(kubernetes: Kubernetes, pod: str, container: str) -> tuple[str, ...] | None:
    """The end of what a container wrote before it was started again, or ended; `None` where nobody can say now."""
    for previous in ("true", "false"):
        params = {"container": container, "tailLines": str(LAST_LINES), "previous": previous}
        try:
            async with aclosing(kubernetes.logs(pod, params=params)) as lines:
                return tuple([line async for line in lines])
        except KubernetesError as error:
            if error.status not in (400, 404):
                return None
        except EngineError:
            return None
    return ()


def _runs(pod: Object) -> bool:
    return "status" in pod and pod["status"].get("phase") == "Running"


def _parse(line: str) -> tuple[float | None, str]:
    """A line with its time before it, of nanoseconds."""
    stamp, _, text = line.partition(" ")
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    try:
        return (epoch_s(f"{whole}+00:00") or 0.0) + float(f"0.{fraction or 0}"), text
    except ValueError:
        return None, line
