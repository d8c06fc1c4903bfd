"""One suite for the port that control knows, on the fake and on the real link with a gateway's side played."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from shoal.core.routing import LATENCY_BOUNDS_MS, AgentRoute, HealthCheck, Snapshot, Traffic
from shoal.errors import GatewayError
from shoal.proxy import link as link_module
from shoal.proxy.codec import Delta, patch
from shoal.proxy.link import serve_gateways
from shoal.proxy.memory import MemoryGateways
from shoal.proxy.protocol import Gateways
from shoal.proxy.uplink import Uplink
from shoal.proxy.wire import EnvoyEnd, Report

SNAPSHOT = Snapshot("f", "127.0.0.1", 1, agents={"a": AgentRoute("a", "http", HealthCheck(None, 1, 1, 1))})


def latencies(count: int) -> tuple[int, ...]:
    return (count,) * len(LATENCY_BOUNDS_MS)


class Stage(Protocol):
    """What the suite needs to play gateways."""

    gateways: Gateways

    async def connect(self, name: str) -> None: ...
    async def disconnect(self, name: str) -> None: ...
    async def acknowledge(self, name: str) -> None: ...
    async def count(self, name: str, traffic: Mapping[str, Traffic]) -> None: ...
    async def lose_envoy(self, name: str, end: EnvoyEnd) -> None: ...
    def snapshot(self, name: str) -> Snapshot | None: ...


class MemoryStage:
    def __init__(self) -> None:
        self._memory = MemoryGateways(agrees=False)
        self.gateways: Gateways = self._memory

    async def connect(self, name: str) -> None:
        self._memory.connect(name)

    async def disconnect(self, name: str) -> None:
        self._memory.disconnect(name)

    async def acknowledge(self, name: str) -> None:
        self._memory.acknowledge(name)

    async def count(self, name: str, traffic: Mapping[str, Traffic]) -> None:
        self._memory.count(name, traffic)

    async def lose_envoy(self, name: str, end: EnvoyEnd) -> None:
        self._memory.end(name, end)

    def snapshot(self, name: str) -> Snapshot | None:
        return self._memory.snapshot


class Played:
    """A gateway without an Envoy."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.version = 0
        self.report = Report()
        self.refuse = ""

    def receive(self, delta: Delta) -> None:
        self.version = delta.version
        self.snapshot = patch(self.snapshot, delta)

    def connected(self, connected: bool) -> None:
        if not connected:
            self.report = replace(self.report, acknowledged=0)

    def status(self) -> Report:
        return self.report


class LinkStage:
    def __init__(self, gateways: Gateways, address: str, tasks: asyncio.TaskGroup) -> None:
        self.gateways = gateways
        self._address = address
        self._tasks = tasks
        self._played: dict[str, tuple[Played, Uplink, asyncio.Task[None]]] = {}

    async def connect(self, name: str) -> None:
        played = Played()
        uplink = Uplink(self._address, name, played)
        self._played[name] = (played, uplink, self._tasks.create_task(uplink.run()))
        await until(lambda: name in self.gateways.live)

    async def disconnect(self, name: str) -> None:
        self._played.pop(name)[2].cancel()
        await until(lambda: name not in self.gateways.live)

    async def acknowledge(self, name: str) -> None:
        played, uplink, _ = self._played[name]
        version = self.gateways.push(SNAPSHOT) - 1 if played.version == 0 else played.version
        await until(lambda: played.version >= version)
        played.report = replace(played.report, acknowledged=played.version)
        uplink.wake()

    async def refuse(self, name: str, words: str) -> None:
        played, uplink, _ = self._played[name]
        played.report = replace(played.report, received=played.version, refused=words)
        uplink.wake()

    async def count(self, name: str, traffic: Mapping[str, Traffic]) -> None:
        played, uplink, _ = self._played[name]
        played.report = replace(played.report, traffic=traffic)
        uplink.wake()

    async def lose_envoy(self, name: str, end: EnvoyEnd) -> None:
        played, uplink, _ = self._played[name]
        played.report = replace(played.report, ends=(*played.report.ends, end))
        uplink.wake()

    def snapshot(self, name: str) -> Snapshot | None:
        return self._played[name][0].snapshot

    def end(self) -> None:
        for _, _, task in self._played.values():
            task.cancel()


async def until(condition: Callable[[], object], deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


@asynccontextmanager
async def stage_on(kind: str, directory: Path) -> AsyncGenerator[Stage]:
    if kind == "memory":
        yield MemoryStage()
        return
    address = f"unix:{directory}/link.sock"
    async with AsyncExitStack() as stack:
        gateways = await stack.enter_async_context(serve_gateways(address))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        stage = LinkStage(gateways, address, tasks)
        stack.callback(stage.end)
        yield stage


@pytest.fixture(params=["memory", "link"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_the_live_set_is_sorted_and_changes_are_told(kind: str, tmp_path: Path) -> None:
    async with stage_on(kind, tmp_path) as stage, asyncio.timeout(20):
        assert stage.gateways.live == ()
        await stage.connect("b")
        await stage.gateways.changed()
        await stage.connect("a")
        await stage.gateways.changed()
        assert stage.gateways.live == ("a", "b")
        await stage.disconnect("b")
        await stage.gateways.changed()
        assert stage.gateways.live == ("a",)


async def test_that_all_have_agreed_is_told(kind: str, tmp_path: Path) -> None:
    """Nobody is no agreement; something newer, and who comes anew, have to be agreed upon."""
    async with stage_on(kind, tmp_path) as stage, asyncio.timeout(20):
        version = stage.gateways.push(SNAPSHOT)
        assert not stage.gateways.agreed
        await stage.connect("a")
        await stage.connect("b")
        await until(lambda: stage.snapshot("a") and stage.snapshot("b"))
        await stage.acknowledge("b")
        await until_behind(stage, version, ("a",))
        await stage.gateways.changed()
        assert not stage.gateways.agreed
        await stage.acknowledge("a")
        await stage.gateways.changed()
        assert stage.gateways.agreed
        await stage.connect("c")
        assert not stage.gateways.agreed
        await stage.disconnect("c")
        assert stage.gateways.agreed
        stage.gateways.push(SNAPSHOT)
        assert not stage.gateways.agreed


async def test_versions_rise_and_nobody_live_is_nobody_behind(kind: str, tmp_path: Path) -> None:
    async with stage_on(kind, tmp_path) as stage:
        first = stage.gateways.push(SNAPSHOT)
        assert stage.gateways.push(SNAPSHOT) > first
        assert await stage.gateways.wait_acknowledged(first + 1, 0.01) == ()


async def test_who_is_behind_is_named_and_waited_for(kind: str, tmp_path: Path) -> None:
    async with stage_on(kind, tmp_path) as stage, asyncio.timeout(20):
        await stage.connect("a")
        await stage.connect("b")
        version = stage.gateways.push(SNAPSHOT)
        assert await stage.gateways.wait_acknowledged(version, 0.05) == ("a", "b")
        await until(lambda: stage.snapshot("a") and stage.snapshot("b"))
        await stage.acknowledge("a")
        await until_behind(stage, version, ("b",))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(stage.gateways.wait_acknowledged(version, 20))
            await stage.acknowledge("b")
        assert waiting.result() == ()


async def until_behind(stage: Stage, version: int, names: tuple[str, ...]) -> None:
    while await stage.gateways.wait_acknowledged(version, 0.01) != names:
        pass


async def test_who_goes_while_waited_for_is_not_waited_for_long(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_COMES_BACK_S", 0.05)
    async with stage_on(kind, tmp_path) as stage, asyncio.timeout(20):
        await stage.connect("a")
        version = stage.gateways.push(SNAPSHOT)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(stage.gateways.wait_acknowledged(version, 20))
            await stage.disconnect("a")
        assert waiting.result() == ()


async def test_who_was_connected_a_moment_ago_is_behind(tmp_path: Path) -> None:
    """It serves on from its last snapshot, so its silence is no agreement; once it is back, its word counts."""
    async with stage_on("link", tmp_path) as stage, asyncio.timeout(20):
        await stage.connect("a")
        await stage.disconnect("a")
        version = stage.gateways.push(SNAPSHOT)
        assert await stage.gateways.wait_acknowledged(version, 0.01) == ("a",)
        await stage.connect("a")
        await until(lambda: stage.snapshot("a"))
        await stage.acknowledge("a")
        assert await stage.gateways.wait_acknowledged(version, 20) == ()


async def test_a_refusal_does_not_end_the_wait(tmp_path: Path) -> None:
    """What is refused may be a listener while endpoints are on their way: an agreement that follows is waited for."""
    async with stage_on("link", tmp_path) as stage, asyncio.timeout(20):
        assert isinstance(stage, LinkStage)
        await stage.connect("a")
        version = stage.gateways.push(SNAPSHOT)
        await until(lambda: stage.snapshot("a"))
        await stage.refuse("a", "Listener: no")
        await until(lambda: stage.gateways.refusals == {"a": "Listener: no"})
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(stage.gateways.wait_acknowledged(version, 20))
            await stage.acknowledge("a")
        assert waiting.result() == ()


async def test_a_histogram_of_other_bounds_is_dropped_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway of another version must not end the controller; its other counts are as good as any."""
    async with stage_on("link", tmp_path) as stage, asyncio.timeout(20):
        stage.gateways.push(SNAPSHOT)
        await stage.connect("a")
        for requests in (1, 2):
            await stage.count("a", {"a": Traffic(requests=requests, latency_counts=(1, requests))})
            wanted = Traffic(requests=requests)
            await until(lambda wanted=wanted: stage.gateways.traffic().get("a") == wanted)
    assert caplog.text.count("found 2 buckets") == 1


async def test_who_comes_later_gets_everything(kind: str, tmp_path: Path) -> None:
    async with stage_on(kind, tmp_path) as stage:
        stage.gateways.push(SNAPSHOT)
        await stage.connect("a")
        await until(lambda: stage.snapshot("a") == SNAPSHOT)
        more = replace(SNAPSHOT, agents={}, gateways=2)
        stage.gateways.push(more)
        await until(lambda: stage.snapshot("a") == more)
        assert stage.snapshot("a") == more


async def test_traffic_is_merged_and_keeps_its_identity(kind: str, tmp_path: Path) -> None:
    """Counts add, the least healthy gateway counts, and who leaves takes only what was of the instant."""
    async with stage_on(kind, tmp_path) as stage, asyncio.timeout(20):
        stage.gateways.push(SNAPSHOT)
        await stage.connect("a")
        await stage.connect("b")
        quiet = Traffic(requests=1)
        await stage.count("a", {"a": Traffic(1, 2, 10, 1, 3, latencies(4)), "quiet": quiet})
        await stage.count("b", {"a": Traffic(2, 0, 5, 0, 2, latencies(1))})
        merged = Traffic(3, 2, 15, 1, 2, latencies(5))
        await until(lambda: stage.gateways.traffic().get("a") == merged and "quiet" in stage.gateways.traffic())
        same = stage.gateways.traffic()["quiet"]
        await stage.disconnect("b")
        await until(lambda: stage.gateways.traffic()["a"] == Traffic(1, 2, 15, 1, 3, latencies(5)))
        assert stage.gateways.traffic()["quiet"] is same


async def test_a_change_of_counts_is_told(kind: str, tmp_path: Path) -> None:
    async with stage_on(kind, tmp_path) as stage, asyncio.timeout(20):
        stage.gateways.push(SNAPSHOT)
        await stage.connect("a")
        await stage.gateways.changed()
        await stage.count("a", {"a": Traffic(held=1)})
        while "a" not in stage.gateways.traffic():
            await stage.gateways.changed()
        assert stage.gateways.traffic()["a"] == Traffic(held=1)


async def test_an_address_that_is_taken_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="can't listen"):
        async with serve_gateways(f"unix:{tmp_path}/missing/link.sock"):
            pass


async def test_an_envoy_that_ended_is_told_once(kind: str, tmp_path: Path) -> None:
    """Each as it happens, whatever else is reported beside it."""
    first, second = EnvoyEnd(1.5, "signal 9"), EnvoyEnd(2.0, "exit code 1")
    async with stage_on(kind, tmp_path) as stage:
        await stage.connect("g")
        assert stage.gateways.take_ends() == ()
        for end in (first, second):
            await stage.lose_envoy("g", end)
            taken: tuple[tuple[str, EnvoyEnd], ...] = ()
            async with asyncio.timeout(20):
                while not taken:
                    await stage.gateways.changed()
                    taken = stage.gateways.take_ends()
            assert taken == (("g", end),)
            await stage.count("g", {"a": Traffic(requests=int(end.at))})
        assert stage.gateways.take_ends() == ()
