"""The acting half: follows the node's Docker, probes the fleet's containers there, and ends those that are dead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shoal.core.signals import Usage
from shoal.engines.nvml import with_gpus
from shoal.engines.probe import probe
from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker
from shoal.engines.swarm.node.census import Deadline, Found, devices_of, read_container
from shoal.engines.swarm.node.health import Check, Condition, after_probe, next_probe_in_s
from shoal.engines.swarm.node.meter import Look, Meter, parse_stats
from shoal.engines.swarm.node.states import State, States
from shoal.errors import EngineError

logger = logging.getLogger(__name__)

Ask = Callable[[str, int, str | None, float], Coroutine[Any, Any, str | None]]

_LOOK_S = 5.0  # events tell of everything; this is for what they might not
_AGAIN_S = 0.5
_REPLAY_S = 3600.0  # Docker keeps its last 256 events
_LATE_S = 1.0
_MEASURE_S = 1.0
_AT_ONCE = 8
_EVENTS = ("start", "kill", "oom", "die")
# Everything else that a container is sent is meant to end it.
_RELOADS = frozenset(("1", "10", "12"))


@dataclass(frozen=True, slots=True)
class Clocks:
    """`wall` is epoch seconds; `steady` is stepped by nobody."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class _Measured:
    at_s: float = float("-inf")
    usage: Mapping[str, Usage] = field(default_factory=dict[str, Usage])


class NodeAgent:
    """One node's. The containers are asked in the fleet's network, which has the fleet's name."""

    def __init__(self, docker: Docker, fleet: str, *, ask: Ask = probe, clocks: Clocks | None = None) -> None:
        self.docker = docker
        self.states = States()
        self._fleet = fleet
        self._ask = ask
        self._clocks = clocks or Clocks()
        self._wake = asyncio.Event()
        self._stopping: set[str] = set()
        self._out_of_memory: set[str] = set()
        self._found: dict[str, Found] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._meter = Meter()
        self._measured = _Measured()
        self._devices: dict[str, tuple[str, ...]] = {}
        self._measuring = asyncio.Lock()
        self._looked = False

    def has(self, container: str) -> bool:
        """Whether it is a container of the fleet's agents, running here."""
        return container in self._found

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            while True:
                self._wake.clear()
                await self._look(group)
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _follow(self) -> None:
        """Wakes the next look with every start and end; and who is being stopped is not to be judged any more."""
        since = self._clocks.wall() - _REPLAY_S
        label = f"{names.FLEET}={self._fleet}"
        while True:
            try:
                async with contextlib.aclosing(
                    self.docker.events(since=since, type="container", label=label, event=_EVENTS)
                ) as events:
                    async for event in events:
                        since = event["timeNano"] / 1e9
                        self._take(event)
            except EngineError as error:
                logger.warning("events of this node's Docker: %s", error)
            await asyncio.sleep(_AGAIN_S)
            self._wake.set()

    def _take(self, event: Mapping[str, Any]) -> None:
        attributes: Mapping[str, str] = event["Actor"]["Attributes"]
        if event["Action"] == "kill" and attributes.get("signal") not in _RELOADS:
            self._stopping.add(event["Actor"]["ID"])
        elif event["Action"] == "oom":  # of any of its processes: it may well go on
            self._out_of_memory.add(event["Actor"]["ID"])
        elif event["Action"] == "die" and event["Actor"]["ID"] in self._out_of_memory:
            self._out_of_memory.remove(event["Actor"]["ID"])
            if attributes.get("exitCode") != "0":
                self._tell_out_of_memory(event["Actor"]["ID"], attributes)
        self._wake.set()

    def _tell_out_of_memory(self, container: str, labels: Mapping[str, str]) -> None:
        if names.TASK in labels and names.MEMORY in labels:
            limit = f"limit {int(labels[names.MEMORY]) / 2**20:.0f} MiB (resources.memory)"
            ended_at = self._clocks.wall()
            self.states.put(State(container, labels[names.TASK], False, None, ended_at, f"out of memory: {limit}"))

    async def _look(self, group: asyncio.TaskGroup) -> None:
        try:
            listed = await self.docker.containers({names.FLEET: self._fleet})
        except EngineError as error:
            logger.warning("containers of this node's Docker: %s", error)
            return
        found = {one.container: one for each in listed if (one := self._read(each)) is not None}
        for container in self._watching.keys() - found.keys():
            self._watching.pop(container).cancel()
        self._found = found
        self._stopping &= found.keys()
        self.states.keep_only(frozenset(found), self._clocks.wall())
        for container, one in found.items():
            if container in self._watching:
                continue
            if one.deadline is not None:
                self._watching[container] = group.create_task(self._await_deadline(one, one.deadline))
            elif one.check is not None and one.host is not None:
                watch = self._watch(one, one.host, one.check, adopted=not self._looked)
                self._watching[container] = group.create_task(watch)
        self._looked = True

    def _read(self, listed: Mapping[str, Any]) -> Found | None:
        try:
            return read_container(listed, self._fleet)
        except ValueError as error:
            logger.warning("container %s: %s", listed.get("Id"), error)
            return None

    async def _watch(self, found: Found, host: str, check: Check, *, adopted: bool) -> None:
        """Probes one container until it is dead, stopped or gone.

        `adopted`: it was there before this agent, which does not know how it was: nothing is told of it before it
        answered, or failed for as long as to be dead. One that is older than a start may be was ready, or it would have
        been ended.
        """
        age_s = max(0.0, self._clocks.wall() - found.created_at)
        condition = Condition(was_ready=adopted and age_s > check.start_period_s)
        born_s = self._clocks.steady() - age_s
        while not condition.dead:
            asked_s = self._clocks.steady()
            miss = await self._ask(host, check.port, check.path, check.timeout_s)
            now_s = self._clocks.steady()
            if found.container in self._stopping:
                return
            if miss is None or now_s - asked_s <= check.timeout_s + _LATE_S:  # else it was this process that slept
                condition = after_probe(condition, check, miss, now_s - born_s)
                if condition.ready or condition.dead or not adopted:
                    self._tell(found, condition)
            if not condition.dead:
                await asyncio.sleep(next_probe_in_s(condition, check, now_s - born_s))
        await self._end(found, check.grace_s, condition.reason)

    async def _await_deadline(self, found: Found, deadline: Deadline) -> None:
        """Ends a run that takes too long, whoever else may be about to; one that ends before cancels this."""
        ran_s = max(0.0, self._clocks.wall() - found.created_at)
        await asyncio.sleep(max(0.0, deadline.after_s - ran_s))
        reason = f"timed out after {deadline.after_s:g}s"
        self.states.put(State(found.container, found.task, ready=False, ended_at=self._clocks.wall(), reason=reason))
        await self._end(found, deadline.grace_s, reason)

    def _tell(self, found: Found, condition: Condition) -> None:
        now, before = self._clocks.wall(), self.states.get(found.container)
        ready_at = before.ready_at if before is not None else None
        if condition.ready and (before is None or not before.ready):
            ready_at = now
        self.states.put(
            State(
                container=found.container,
                task=found.task,
                ready=condition.ready,
                ready_at=None if condition.dead else ready_at,
                ended_at=now if condition.dead else None,
                reason=condition.reason,
            )
        )

    async def _end(self, found: Found, grace_s: float, why: str) -> None:
        """Ends it as its file says, and Swarm starts another; the look that misses it cancels this."""
        logger.warning("task %s (container %s) is ended: %s", found.task, found.container[:12], why)
        await self._kill(found.container, "SIGTERM")
        await asyncio.sleep(grace_s)
        while True:
            await self._kill(found.container, "SIGKILL")
            await asyncio.sleep(_AGAIN_S)

    async def _kill(self, container: str, signal: str) -> None:
        try:
            await self.docker.kill(container, signal)
        except EngineError as error:
            logger.warning("container %s could not be sent %s: %s", container[:12], signal, error)

    async def usage(self) -> Mapping[str, Usage]:
        """Use by task, at most a second old; a container is absent from the first measurement that sees it."""
        async with self._measuring:
            if self._clocks.steady() - self._measured.at_s >= _MEASURE_S:
                self._measured = _Measured(self._clocks.steady(), await self._measure())
            return self._measured.usage

    async def _measure(self) -> Mapping[str, Usage]:
        found, limit = dict(self._found), asyncio.Semaphore(_AT_ONCE)

        async def look(container: str) -> Look | None:
            async with limit:
                try:
                    stats = await self.docker.stats_once(container)
                except EngineError:  # gone meanwhile, or Docker is: then it is absent
                    return None
                return parse_stats(stats, self._clocks.steady())

        looks = await asyncio.gather(*map(look, found))
        seen = {container: one for container, one in zip(found, looks, strict=True) if one is not None}
        usage = self._meter.measure(seen, self._clocks.wall())
        usage = await with_gpus(usage, await self._read_devices(one for one in found.values() if one.has_gpus))
        return {found[container].task: value for container, value in usage.items()}

    async def _read_devices(self, wanted: Iterable[Found]) -> dict[str, tuple[str, ...]]:
        """By container the GPUs that it has for as long as it lives."""
        known: dict[str, tuple[str, ...]] = {}
        for one in wanted:
            with contextlib.suppress(EngineError):  # gone meanwhile
                devices = self._devices.get(one.container)
                known[one.container] = devices or devices_of(await self.docker.container(one.container))
        self._devices = known
        return known
