"""A command in a replica over a WebSocket, both ends: the controller is one to people, and a node's agent to it.

Binary messages: a byte that tells the stream (0 input, 1 output, 2 errors), then its content. Text messages are JSON:
`{"end_input": true}` and `{"resize": {"rows": 24, "columns": 80}}` to the command; `{"exit_code": 0}` (`null` where
only its outputs are closed) or `{"error": "...", "kind": <class of ShoalError>}` from it, as the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import aiohttp
from aiohttp import WSMsgType, web

from shoal.engines.protocol import Command
from shoal.errors import EngineError, ShoalError, error_of_kind

STDIN, STDOUT, STDERR = "stdin", "stdout", "stderr"
HEARTBEAT_S = 10.0
_STREAMS = (STDIN, STDOUT, STDERR)
_LONGEST_MESSAGE = 1 << 20


def render_channel(stream: str, content: bytes) -> bytes:
    """One binary message."""
    return bytes([_STREAMS.index(stream)]) + content


def parse_channel(message: bytes) -> tuple[str, bytes]:
    """Stream and content. Raises ValueError."""
    if not message or message[0] >= len(_STREAMS):
        raise ValueError(f"{message[:1]!r} is no stream of a command")
    return _STREAMS[message[0]], message[1:]


def render_query(argv: Sequence[str], *, tty: bool, **named: str) -> list[tuple[str, str]]:
    """What a command is asked for by: `arg` once for each word, `tty`, and where it is to run."""
    return [*named.items(), *(("arg", word) for word in argv), *([("tty", "1")] if tty else [])]


async def serve_command(
    request: web.Request, run: Callable[[Sequence[str], bool], AbstractAsyncContextManager[Command]]
) -> web.StreamResponse:
    """Runs what a request asks for, until it has ended or who asked for it is gone. `run` takes words and `tty`; a
    ShoalError of it is told over the WebSocket, as a refused handshake has no words."""
    socket = web.WebSocketResponse(max_msg_size=_LONGEST_MESSAGE, heartbeat=HEARTBEAT_S)
    await socket.prepare(request)
    with contextlib.suppress(ConnectionError):  # who asked left
        try:
            argv = request.query.getall("arg", [])
            if not argv:
                raise ShoalError("no command: found no `arg`")
            async with run(argv, "tty" in request.query) as command:
                await _converse(socket, command)
                if not socket.closed:
                    await socket.send_json({"exit_code": await command.exit_code()})
        except ShoalError as error:
            await socket.send_json({"error": str(error), "kind": type(error).__name__})
        await socket.close()
    return socket


async def _converse(socket: web.WebSocketResponse, command: Command) -> None:
    """Until the command has closed its outputs, or who asked for it is gone."""
    async with asyncio.TaskGroup() as group:
        sides = [group.create_task(_tell(socket, command)), group.create_task(_take(socket, command))]
        await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        for side in sides:
            side.cancel()
    if not sides[0].cancelled() and (error := sides[0].result()) is not None:
        raise error


async def _tell(socket: web.WebSocketResponse, command: Command) -> ShoalError | None:
    """What went wrong, as a value: a group would wrap it."""
    try:
        async with contextlib.aclosing(command.output()) as output:
            async for stream, piece in output:
                await socket.send_bytes(render_channel(stream, piece))
    except ConnectionError:
        return None
    except ShoalError as error:
        return error
    return None


async def _take(socket: web.WebSocketResponse, command: Command) -> None:
    """Ends when the WebSocket does."""
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            stream, content = parse_channel(cast("bytes", message.data))
            with contextlib.suppress(ShoalError):  # it does not read any more: its outputs tell how it ends
                await command.write(content if stream == STDIN else b"")
        elif message.type is WSMsgType.TEXT:
            said: dict[str, Any] = json.loads(cast("str", message.data))
            if said.get("end_input"):
                await command.end_input()
            if size := said.get("resize"):
                await command.resize(int(size["rows"]), int(size["columns"]))


class RemoteCommand:
    """A `Command` that runs where the WebSocket leads to."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._exit_code: int | None = None

    async def output(self) -> AsyncGenerator[tuple[str, bytes]]:
        """Raises what kept it from running, and EngineError where the connection is lost before its end."""
        async for message in self._socket:
            if message.type is WSMsgType.BINARY:
                yield parse_channel(cast("bytes", message.data))
            elif message.type is WSMsgType.TEXT:
                said: dict[str, Any] = json.loads(cast("str", message.data))
                if "error" in said:
                    raise error_of_kind(said.get("kind", ""), said["error"])
                self._exit_code = said["exit_code"]
                return
        raise EngineError("the connection to the command was lost; it may have ended, and it may go on")

    async def write(self, content: bytes) -> None:
        await self._send(self._socket.send_bytes(render_channel(STDIN, content)))

    async def end_input(self) -> None:
        await self._send(self._socket.send_json({"end_input": True}))

    async def resize(self, rows: int, columns: int) -> None:
        await self._send(self._socket.send_json({"resize": {"rows": rows, "columns": columns}}))

    async def exit_code(self) -> int | None:
        return self._exit_code

    def close(self) -> None:
        """Whoever entered the WebSocket leaves it."""

    async def _send(self, sending: Any) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # `output` tells how it ended
            await sending
