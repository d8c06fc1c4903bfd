"""What replicas wrote, as the kubelets keep it: of the pods that there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.names import labels_of
from shoal.engines.kubernetes.read import replica_id
from shoal.engines.kubernetes.render_pod import CONTAINER
from shoal.engines.kubernetes.times import epoch_s
from shoal.engines.log_gathering import gathered
from shoal.engines.protocol import LogLine
from shoal.errors import EngineError

LAST_LINES = 20
MOST_FOLLOWED = 256  # each is a connection through the API server to a kubelet
_LOOK_S = 1.0  # for pods that came since
_TICK_S = 1e-6  # what was written by then was told
_AT_ONCE = 16

Object = Mapping[str, Any]


class Logs:
    """Those of one fleet, whose pods `pods` gives."""

    def __init__(self, kubernetes: Kubernetes, pods: Callable[[], Awaitable[Sequence[Object]]]) -> None:
        self._kubernetes, self._pods = kubernetes, pods
        self.followed = 0  # pods now

    def one_less(self, _: object) -> None:
        """A pod is not followed any more."""
        self.followed -= 1

    async def read(
        self, agents: Sequence[str], since: float | None, tail: int | None, until: float | None = None
    ) -> list[LogLine]:
        """What was written before `until`, or now, by time; of each pod the last `tail` lines. A pod that can't be read
        says so in a line of its own."""
        slots = asyncio.Semaphore(_AT_ONCE)
        lines: list[LogLine] = []

        async def read(pod: Object) -> None:
            try:
                async with slots, aclosing(self.lines(pod, follow=False, since=since, tail=tail)) as found:
                    lines.extend([line async for line in found if until is None or (line.at or 0.0) < until])
            except EngineError as error:
                lines.append(LogLine(_name(pod), labels_of(pod)[names.AGENT], f"not read: {error}", "stderr", until))

        pods = await self.pods(agents)
        async with asyncio.TaskGroup() as tasks:
            for pod in pods:
                tasks.create_task(read(pod))
        return sorted(lines, key=lambda line: line.at or 0.0)

    async def follow(self, agents: Sequence[str], since: float) -> AsyncGenerator[LogLine]:
        """What is written from then on, in pods too that come later. Of more than MOST_FOLLOWED, by all who follow, a
        line says that they are not; they are once others end."""
        async with aclosing(gathered(_Follower(self, agents, since).run)) as lines:
            async for line in lines:
                yield line

    async def pods(self, agents: Sequence[str]) -> list[Object]:
        """Those that these agents have."""
        return [pod for pod in await self._pods() if labels_of(pod).get(names.AGENT) in agents]

    async def lines(
        self, pod: Object, *, follow: bool, since: float | None, tail: int | None
    ) -> AsyncGenerator[LogLine]:
        """Of one pod; of one that has not started, or is gone, there are none."""
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


class _Follower:
    """One who follows."""

    def __init__(self, logs: Logs, agents: Sequence[str], since: float) -> None:
        self._logs, self._agents, self._since = logs, agents, since
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._over: set[str] = set()  # had ended when their last reader began, so that it reads the rest
        self._told: dict[str, float] = {}  # by pod: the time of the last line
        self._left: set[str] = set()  # of these it was told that they are not followed
        self._ended = asyncio.Semaphore(_AT_ONCE)

    async def run(self, queue: asyncio.Queue[LogLine], tasks: asyncio.TaskGroup) -> None:
        """Looks for pods until cancelled."""
        try:
            while True:
                pods: list[Object] = []
                with suppress(EngineError):  # the API server is back one day
                    pods = await self._logs.pods(self._agents)
                there = {pod["metadata"]["uid"] for pod in pods}
                self._readers = {
                    uid: reader for uid, reader in self._readers.items() if uid in there or not reader.done()
                }
                left = self._read(pods, queue, tasks)
                if left:
                    await queue.put(_not_followed(left))
                await asyncio.sleep(_LOOK_S)
        finally:
            for reader in self._readers.values():
                reader.cancel()

    def _read(self, pods: Sequence[Object], queue: asyncio.Queue[LogLine], tasks: asyncio.TaskGroup) -> list[Object]:
        """Begins to read those that nobody reads. Gives the ones that are too many, and were not told before."""
        left: list[Object] = []
        for pod in sorted(pods, key=_has_not_started):  # what has nothing to say yet takes nobody's place
            uid = pod["metadata"]["uid"]
            if uid in self._over or (uid in self._readers and not self._readers[uid].done()):
                continue
            if pod["status"].get("phase") in ("Succeeded", "Failed"):
                self._over.add(uid)
                self._readers[uid] = tasks.create_task(self._copy_rest(pod, queue))
            elif self._logs.followed < MOST_FOLLOWED:
                self._left.discard(uid)
                self._logs.followed += 1
                self._readers[uid] = tasks.create_task(self._copy(pod, queue))
                self._readers[uid].add_done_callback(self._logs.one_less)
            elif uid not in self._left and not _has_not_started(pod):
                self._left.add(uid)
                left.append(pod)
        return left

    async def _copy(self, pod: Object, queue: asyncio.Queue[LogLine]) -> None:
        uid = pod["metadata"]["uid"]
        since = self._told.get(uid, self._since)
        with suppress(EngineError):  # the next look finds the pod again, if it is there
            async with aclosing(self._logs.lines(pod, follow=True, since=since, tail=None)) as lines:
                async for line in lines:
                    self._told[uid] = (line.at or since) + _TICK_S
                    await queue.put(line)

    async def _copy_rest(self, pod: Object, queue: asyncio.Queue[LogLine]) -> None:
        async with self._ended:  # it ends by itself, so that it takes no place of those that are followed
            await self._copy(pod, queue)


def _has_not_started(pod: Object) -> bool:
    return pod["status"].get("phase") == "Pending"


def _not_followed(pods: Sequence[Object]) -> LogLine:
    agent, replica = labels_of(pods[0])[names.AGENT], _name(pods[0])
    others = f", nor {len(pods) - 1} more" if len(pods) > 1 else ""
    text = (
        f"not followed{others}: {MOST_FOLLOWED} pods are, by all who follow, and one controller follows no more; name "
        "fewer agents, or look without `--follow`"
    )
    return LogLine(replica, agent, text, "stderr")


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
