"""What replicas wrote, gathered from the services that they are tasks of, on whichever node they ran."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from shoal.engines.log_gathering import gathered
from shoal.engines.protocol import LogLine
from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker, DockerError
from shoal.engines.swarm.names import replica_id

_LOOK_S = 1.0  # for services that came since
_TICK_S = 1e-6  # what was written by then was told


class Logs:
    """Those of one fleet."""

    def __init__(self, docker: Docker, fleet: str) -> None:
        self._docker, self._fleet = docker, fleet

    async def read(self, agents: Sequence[str], since: float | None, tail: int | None) -> list[LogLine]:
        """What was written until now, by time; of each service the last `tail` lines."""
        lines: list[LogLine] = []
        for service in await self._services(agents):
            async with aclosing(self._lines(service, follow=False, since=since, tail=tail)) as found:
                lines += [line async for line in found]
        return sorted(lines, key=lambda line: line.at or 0.0)

    async def follow(self, agents: Sequence[str], since: float) -> AsyncGenerator[LogLine]:
        """What is written from then on, by services too that come later."""
        async with aclosing(gathered(lambda queue, tasks: self._find(agents, since, queue, tasks))) as lines:
            async for line in lines:
                yield line

    async def _find(
        self, agents: Sequence[str], since: float, queue: asyncio.Queue[LogLine], tasks: asyncio.TaskGroup
    ) -> None:
        readers: dict[str, asyncio.Task[None]] = {}
        told: dict[str, float] = {}  # by service: the time of the last line
        try:
            while True:
                for service in await self._services(agents):
                    key = service["ID"]
                    if key not in readers or readers[key].done():  # Docker ends a stream now and then
                        reader = self._copy(service, told.get(key, since), queue, told)
                        readers[key] = tasks.create_task(reader)
                await asyncio.sleep(_LOOK_S)
        finally:
            for reader in readers.values():
                reader.cancel()

    async def _copy(
        self, service: dict[str, Any], since: float, queue: asyncio.Queue[LogLine], told: dict[str, float]
    ) -> None:
        async with aclosing(self._lines(service, follow=True, since=since, tail=None)) as lines:
            async for line in lines:
                told[service["ID"]] = (line.at or since) + _TICK_S
                await queue.put(line)

    async def _lines(
        self, service: dict[str, Any], *, follow: bool, since: float | None, tail: int | None
    ) -> AsyncGenerator[LogLine]:
        labels = service["Spec"]["Labels"]
        agent, ordinal, run = labels[names.AGENT], labels.get(names.ORDINAL), labels.get(names.RUN)
        try:
            async with aclosing(
                self._docker.service_logs(service["ID"], follow=follow, since=since, tail=tail)
            ) as lines:
                async for line in lines:
                    replica = run or replica_id(agent, line.task_id, ordinal)
                    yield LogLine(replica, agent, line.text, line.stream, line.at)
        except DockerError as error:
            if error.status != 404:  # it went meanwhile
                raise

    async def _services(self, agents: Sequence[str]) -> list[dict[str, Any]]:
        found = await self._docker.services({names.FLEET: self._fleet})
        return [each for each in found if each["Spec"]["Labels"].get(names.AGENT) in agents]
