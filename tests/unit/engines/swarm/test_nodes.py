"""What agents tell reaches the controller at once, and one that is silent is known as such."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from shoal.core.signals import Usage
from shoal.engines.command_line import STDERR, STDOUT, RemoteCommand
from shoal.engines.swarm.node.server import NodeServer
from shoal.engines.swarm.node.states import State, States
from shoal.engines.swarm.nodes import SILENT_S, NodeAgents
from shoal.engines.swarm.read import Probe
from shoal.errors import EngineError, NotFound, ShoalError

PATIENCE_S = 20.0


class FakeSession:
    """A command that repeats its input in capitals, then complains and ends with 7."""

    def __init__(self, agent: FakeAgent, *, breaks: bool) -> None:
        self.agent, self.breaks = agent, breaks
        self.given: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def output(self) -> AsyncGenerator[tuple[str, bytes]]:
        while (content := await self.given.get()) is not None:
            yield STDOUT, content.upper()
        if self.breaks:
            raise EngineError("docker went away")
        yield STDERR, b"oh"

    async def write(self, content: bytes) -> None:
        self.given.put_nowait(content)

    async def end_input(self) -> None:
        self.given.put_nowait(None)

    async def resize(self, rows: int, columns: int) -> None:
        self.agent.sizes.append((rows, columns))

    async def exit_code(self) -> int | None:
        return 7

    def close(self) -> None:
        self.given.put_nowait(None)


class FakeAgent:
    """An agent of two containers whose word is what a test says; it is its own Docker."""

    def __init__(self) -> None:
        self.states = States()
        self.docker = self
        self.asked: list[tuple[str, list[str], bool]] = []
        self.sizes: list[tuple[int, int]] = []
        self.closed = 0

    def has(self, container: str) -> bool:
        return container in {"a", "b"}

    async def usage(self) -> Mapping[str, Usage]:
        return {"task-a": Usage(0.5, 1000, 12.0, 2.0)}

    @asynccontextmanager
    async def exec(self, container: str, argv: list[str], *, stdin: bool, tty: bool) -> AsyncIterator[FakeSession]:
        self.asked.append((container, argv, tty))
        if argv == ["missing"]:
            raise EngineError("no such command")
        try:
            yield FakeSession(self, breaks=argv == ["breaks"])
        finally:
            self.closed += 1

    @asynccontextmanager
    async def listen(self, socket: Path, admit: Callable[[web.Request], None]) -> AsyncIterator[str]:
        app = web.Application()
        NodeServer(cast("Any", self), admit).add_routes(app)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(socket)).start()
            yield f"unix:{socket}"
        finally:
            await runner.cleanup()


def anybody(_: web.Request) -> None:
    """Everybody may ask."""


class Told:
    """Counts what is told, and waits for it."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def __call__(self) -> None:
        self.event.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self.event.clear()
                await self.event.wait()


@asynccontextmanager
async def following(addresses: Mapping[str, str]) -> AsyncIterator[tuple[NodeAgents, Told]]:
    told = Told()
    agents = NodeAgents(told)
    agents.reach(addresses)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agents.run())
        try:
            yield agents, told
        finally:
            running.cancel()


async def test_what_all_agents_tell_is_put_together(tmp_path: Path):
    one, two = FakeAgent(), FakeAgent()
    one.states.put(State("a", "task-a", ready=True, ready_at=5.0))
    async with (
        one.listen(tmp_path / "1", anybody) as first,
        two.listen(tmp_path / "2", anybody) as second,
        following({"n1": first, "n2": second}) as (agents, told),
    ):
        await told.until(lambda: agents.heard() == {"n1", "n2"})
        assert agents.probes() == {"task-a": Probe(True, 5.0, "")}
        two.states.put(State("b", "task-b", ready=False, reason="not yet"))
        await told.until(lambda: "task-b" in agents.probes())
        assert agents.probes()["task-b"] == Probe(False, None, "not yet")
        assert await agents.usage() == {"task-a": Usage(0.5, 1000, 12.0, 2.0)}
        assert agents.silent() == frozenset()


async def test_a_heartbeat_is_no_change(tmp_path: Path):
    one = FakeAgent()
    async with one.listen(tmp_path / "1", anybody) as first, following({"n1": first}) as (agents, told):
        await told.until(lambda: bool(agents.heard()))
        told.event.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):  # more than two heartbeats
                await told.event.wait()


async def test_a_silent_agent_is_known_and_its_containers_stay_as_they_were(tmp_path: Path):
    """It is told within three seconds, though its machine only fell silent and closed nothing."""
    line = b'{"containers": [{"task": "t", "ready": true, "ready_at": 1.0, "reason": "", "ended_at": null}]}\n'

    async def fall_silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line)
        await asyncio.sleep(PATIENCE_S)
        return response

    app = web.Application()
    app.router.add_get("/v1/state", fall_silent)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "1")).start()
    async with following({"n1": f"unix:{tmp_path / '1'}"}) as (agents, told):
        await told.until(lambda: bool(agents.heard()))
        begun_s = time.monotonic()
        await told.until(lambda: agents.silent() == {"n1"})
        assert time.monotonic() - begun_s < SILENT_S + 2.0
        assert agents.probes() == {"t": Probe(True, 1.0, "")}
    await runner.cleanup()


async def test_a_new_agent_of_a_node_takes_the_place_of_the_one_before(tmp_path: Path):
    """Until it has something to say of a container, what the last one said holds."""
    old, new = FakeAgent(), FakeAgent()
    old.states.put(State("a", "task-a", ready=True, ready_at=5.0))
    async with following({}) as (agents, told), new.listen(tmp_path / "2", anybody) as second:
        async with old.listen(tmp_path / "1", anybody) as first:
            agents.reach({"n1": first})
            await told.until(lambda: "task-a" in agents.probes())
            agents.reach({})
            assert agents.probes()["task-a"].ready
        agents.reach({"n1": second})
        new.states.put(State("b", "task-b", ready=True, ready_at=6.0))
        await told.until(lambda: "task-b" in agents.probes())
        assert agents.probes()["task-a"].ready
        new.states.put(State("a", "task-a", ready=False, reason="dead"))
        await told.until(lambda: not agents.probes()["task-a"].ready)


async def test_nobody_is_told_anything_who_is_not_admitted(tmp_path: Path):
    def nobody(_: web.Request) -> None:
        raise web.HTTPForbidden(text="not you")

    one = FakeAgent()
    async with one.listen(tmp_path / "1", nobody) as first, following({"n1": first}) as (agents, _):
        assert await agents.usage() == {}
        with pytest.raises(EngineError, match="refuses a command in a"):
            async with agents.exec("n1", "a", ["true"], tty=False):
                pass
        assert agents.heard() == frozenset()
    assert one.asked == []


async def outputs(command: RemoteCommand) -> dict[str, bytes]:
    written = {STDOUT: b"", STDERR: b""}
    async with aclosing(command.output()) as output:
        async for stream, piece in output:
            written[stream] += piece
    return written


async def test_a_command_is_run_with_input_outputs_and_its_end(tmp_path: Path):
    one = FakeAgent()
    async with (
        one.listen(tmp_path / "1", anybody) as first,
        following({"n1": first}) as (agents, _),
        agents.exec("n1", "a", ["cat", "-"], tty=True) as command,
    ):
        await command.write(b"hello")
        await command.resize(24, 80)
        await command.end_input()
        assert await outputs(command) == {STDOUT: b"HELLO", STDERR: b"oh"}
        assert await command.exit_code() == 7
    assert one.asked == [("a", ["cat", "-"], True)]
    assert one.sizes == [(24, 80)]


async def test_a_command_that_can_not_be_run_is_told(tmp_path: Path):
    one = FakeAgent()
    async with one.listen(tmp_path / "1", anybody) as first, following({"n1": first}) as (agents, _):
        for container, argv, kind, said in (
            ("a", ["missing"], EngineError, "no such command"),
            ("a", [], ShoalError, "no command"),
            ("elsewhere", ["true"], NotFound, "no container 'elsewhere'"),
        ):
            async with agents.exec("n1", container, argv, tty=False) as command:
                with pytest.raises(kind, match=said):
                    await outputs(command)
        with pytest.raises(EngineError, match="node n9 has no agent"):
            async with agents.exec("n9", "a", ["true"], tty=False):
                pass


async def test_what_fails_in_the_middle_is_told_after_what_was_written(tmp_path: Path):
    one = FakeAgent()
    async with (
        one.listen(tmp_path / "1", anybody) as first,
        following({"n1": first}) as (agents, _),
        agents.exec("n1", "a", ["breaks"], tty=False) as command,
        aclosing(command.output()) as output,
    ):
        await command.write(b"x")
        assert await anext(output) == (STDOUT, b"X")
        await command.end_input()
        with pytest.raises(EngineError, match="docker went away"):
            await anext(output)


async def test_who_asks_and_leaves_takes_the_input_with_him(tmp_path: Path):
    """The command is let go of, and the agent serves on."""
    one = FakeAgent()
    async with one.listen(tmp_path / "1", anybody) as first, following({"n1": first}) as (agents, _):
        async with agents.exec("n1", "a", ["cat"], tty=False):
            pass
        async with asyncio.timeout(PATIENCE_S):
            while one.closed != 1:
                await asyncio.sleep(0.01)
        async with agents.exec("n1", "a", ["cat"], tty=False) as command:
            await command.end_input()
            assert await outputs(command) == {STDOUT: b"", STDERR: b"oh"}
