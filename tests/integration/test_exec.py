"""`shoal exec` on one machine where it hurts: who does not read, who leaves, what is large."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from local_fleet import local_engine, ready, template, wanted
from queues_broker import until

from shoal.engines import command_line
from shoal.engines.command_line import HEARTBEAT_S, WINDOW_BYTES, RemoteCommand, serve_command
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.process import session_members
from shoal.errors import ShoalError

MIB = 2**20
PATIENCE_S = 30.0


@asynccontextmanager
async def served(directory: Path) -> AsyncGenerator[tuple[LocalEngine, Any]]:
    """An engine with a replica, and a way to run commands there over a WebSocket."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(), 1))
        (replica,) = await ready(engine, 1)
        app = web.Application()

        async def handle(request: web.Request) -> web.StreamResponse:
            return await serve_command(request, lambda argv, tty: engine.exec(replica.id, argv, tty=tty))

        app.router.add_get("/v1/exec", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        socket = str(directory.parent / "s")
        await web.UnixSite(runner, socket).start()

        @asynccontextmanager
        async def run(*argv: str, tty: bool = False) -> AsyncGenerator[RemoteCommand]:
            async with (
                aiohttp.ClientSession("http://c", connector=aiohttp.UnixConnector(socket)) as session,
                session.ws_connect("/v1/exec", heartbeat=HEARTBEAT_S) as connected,
            ):
                yield await RemoteCommand.ask(connected, argv, tty=tty)

        try:
            yield engine, run
        finally:
            await runner.cleanup()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def everything(command: RemoteCommand, pause_s: float = 0.0) -> bytes:
    found = b""
    async with aclosing(command.output()) as output:
        async for _, piece in output:
            found += piece
            if pause_s:
                await asyncio.sleep(pause_s)
                pause_s = 0.0
    return found


async def test_a_command_that_reads_late_loses_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats are answered meanwhile, and what is sent ahead has a bound."""
    monkeypatch.setattr(command_line, "HEARTBEAT_S", 2.0)
    async with served(directory) as (_, run), run("sh", "-c", "sleep 5; cat | wc -c") as command:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
            counted = tasks.create_task(everything(command))
            await command.write(b"x" * (13 * MIB))
            await command.end_input()
        assert counted.result().split() == [str(13 * MIB).encode()] and await command.exit_code() == 0


async def test_who_reads_late_loses_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "HEARTBEAT_S", 2.0)
    async with served(directory) as (_, run), run("head", "-c", str(5 * MIB), "/dev/zero") as command:
        assert len(await everything(command, pause_s=5.0)) == 5 * MIB


async def test_a_terminal_that_nobody_reads_holds_up_nobody(directory: Path) -> None:
    """More is typed than a terminal holds; who leaves then leaves at once, and no thread is stuck."""
    async with served(directory) as (_, run):
        async with (
            run("sleep", "60", tty=True) as command,
            asyncio.timeout(PATIENCE_S),
            asyncio.TaskGroup() as tasks,
        ):
            telling = tasks.create_task(everything(command))
            for _ in range(8):
                await command.write(b"abc\n" * 4096)
            telling.cancel()
        async with asyncio.timeout(PATIENCE_S):
            found = await asyncio.gather(*(asyncio.to_thread(os.getpid) for _ in range(32)))
    assert found == [os.getpid()] * 32


async def test_what_is_left_is_hung_up_on(directory: Path) -> None:
    """Also one that heeds no hang-up; no descriptor stays open."""
    async with served(directory) as (_, run):
        before = open_files()
        pids: list[int] = []
        for script in ("sleep 61 & echo $$; sleep 62", "trap '' HUP; echo $$; sleep 63"):
            async with run("sh", "-c", script) as command, aclosing(command.output()) as output:
                pids.append(int((await anext(output))[1]))
        await until(lambda: not any(session_members(pid) for pid in pids), "their end")
        await until(lambda: open_files() <= before, "their descriptors")
        assert len(pids) == 2 and [session_members(pid) for pid in pids] == [[], []] and open_files() <= before


async def test_long_words_and_nonsense(directory: Path) -> None:
    """A script may be long; what can't be understood is answered in words."""
    async with served(directory) as (_, run):
        async with run("echo", "y" * 100_000) as command:
            assert len(await everything(command)) == 100_001
        for said, why in (("[]", "no command"), ('{"argv": []}', "no command"), ('{"argv": [1]}', "a list of words")):
            async with answered(run, said) as broken:
                with pytest.raises(ShoalError, match=why):
                    await everything(broken)
        async with run("sleep", "60", tty=True) as command:
            await cast("Any", command)._socket.send_json({"resize": {"rows": "many"}})
            with pytest.raises(ShoalError, match="can't be understood"):
                await everything(command)
        assert WINDOW_BYTES < command_line.LONGEST_MESSAGE


@asynccontextmanager
async def answered(run: Any, first: str) -> AsyncGenerator[RemoteCommand]:
    """A command that is asked for in these words."""
    ask = RemoteCommand.ask

    async def say(socket: aiohttp.ClientWebSocketResponse, argv: object, *, tty: bool) -> RemoteCommand:
        await socket.send_str(first)
        return RemoteCommand(socket)

    RemoteCommand.ask = cast("Any", say)
    try:
        async with run("x") as command:
            yield command
    finally:
        RemoteCommand.ask = ask
