"""A command in a replica over a WebSocket, both ends: the controller is one to people, and a node's agent to it.

The first message says what is to run: `{"argv": ["sh"], "tty": true}`. Binary messages are a byte that tells the stream
(0 input, 1 output, 2 errors), then its content. Text messages are JSON: `{"end_input": true}` and `{"resize": {"rows":
24, "columns": 80}}` to the command; `{"exit_code": 0}` (`null` where only its outputs are closed) or `{"error": "...",
"kind": <class of ShoalError>}` from it, as the last one. Both sides say `{"taken": BYTES}` of what they have passed on,
and send no more than WINDOW_BYTES ahead of that: so each can always listen, which is how it answers the other's pings,
however slowly a command reads, or whoever reads what it writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, cast
from urllib.parse import quote

import aiohttp
from aiohttp import WSMsgType, web

from shoal.engines.protocol import Command
from shoal.errors import EngineError, ShoalError, error_of_kind

STDIN, STDOUT, STDERR = "stdin", "stdout", "stderr"
COMMAND_PATH = "/v1/exec"  # and a segment: what to run it in
HEARTBEAT_S = 10.0
WINDOW_BYTES = 1 << 18
LONGEST_MESSAGE = 1 << 20
_STREAMS = (STDIN, STDOUT, STDERR)


def render_channel(stream: str, content: bytes) -> bytes:
    """One binary message."""
    return bytes([_STREAMS.index(stream)]) + content


def parse_channel(message: bytes) -> tuple[str, bytes]:
    """Stream and content. Raises ValueError."""
    if not message or message[0] >= len(_STREAMS):
        raise ValueError(f"{message[:1]!r} is no stream of a command")
    return _STREAMS[message[0]], message[1:]


class _Window:
    """How much was sent that the other side has not passed on yet."""

    def __init__(self) -> None:
        self._ahead = 0
        self._room = asyncio.Event()

    async def take(self, size: int) -> None:
        """Waits until there is room, then counts it."""
        while self._ahead >= WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()
        self._ahead += size

    def give(self, size: int) -> None:
        """The other side has passed it on."""
        self._ahead -= size
        self._room.set()

    def open(self) -> None:
        """Nothing is waited for any more."""
        self._ahead = -(1 << 62)
        self._room.set()


async def serve_command(
    request: web.Request, run: Callable[[Sequence[str], bool], AbstractAsyncContextManager[Command]]
) -> web.StreamResponse:
    """Runs what is asked for, until it has ended or who asked for it is gone. `run` takes words and `tty`; a ShoalError
    of it is told over the WebSocket, as a refused handshake has no words."""
    socket = web.WebSocketResponse(max_msg_size=LONGEST_MESSAGE, heartbeat=HEARTBEAT_S)
    await socket.prepare(request)
    with contextlib.suppress(ConnectionError):  # who asked left
        try:
            argv, tty = await _asked(socket)
            async with run(argv, tty) as command:
                await _Conversation(socket, command).hold()
                if not socket.closed:
                    await socket.send_json({"exit_code": await command.exit_code()})
        except ShoalError as error:
            await socket.send_json({"error": str(error), "kind": type(error).__name__})
        await socket.close()
    return socket


async def _asked(socket: web.WebSocketResponse) -> tuple[Sequence[str], bool]:
    message = await socket.receive()
    if message.type is not WSMsgType.TEXT:
        raise ShoalError("no command: expected a text message with `argv` and `tty` first")
    try:
        asked: dict[str, Any] = json.loads(cast("str", message.data))
        argv: list[Any] = list(asked["argv"])
        if not argv or not all(isinstance(word, str) for word in argv):
            raise ValueError
        return argv, bool(asked.get("tty"))
    except (ValueError, KeyError, TypeError) as error:
        raise ShoalError("no command: expected `argv`, a list of words") from error


class _Conversation:
    """Between a command and who asked for it."""

    def __init__(self, socket: web.WebSocketResponse, command: Command) -> None:
        self._socket, self._command = socket, command
        self._given: asyncio.Queue[bytes | None] = asyncio.Queue()  # at most a window of the other side's
        self._window = _Window()

    async def hold(self) -> None:
        """Until the command has closed its outputs, or who asked for it is gone. Raises what it ended with."""
        async with asyncio.TaskGroup() as group:
            sides = [group.create_task(self._tell()), group.create_task(self._listen())]
            feeding = group.create_task(self._feed())
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in (*sides, feeding):
                side.cancel()
        for side in sides:  # as values: a group would wrap them
            if not side.cancelled() and (error := side.result()) is not None:
                raise error

    async def _tell(self) -> ShoalError | None:
        try:
            async with contextlib.aclosing(self._command.output()) as output:
                async for stream, piece in output:
                    await self._window.take(len(piece))
                    await self._socket.send_bytes(render_channel(stream, piece))
        except ConnectionError:
            return None
        except ShoalError as error:
            return error
        return None

    async def _listen(self) -> ShoalError | None:
        async for message in self._socket:
            try:
                if message.type is WSMsgType.BINARY:
                    self._given.put_nowait(parse_channel(cast("bytes", message.data))[1])
                elif message.type is WSMsgType.TEXT:
                    await self._obey(json.loads(cast("str", message.data)))
            except (ValueError, KeyError, TypeError) as error:
                return ShoalError(f"a message that can't be understood: {error}")
        return None

    async def _obey(self, said: dict[str, Any]) -> None:
        if said.get("end_input"):
            self._given.put_nowait(None)
        if taken := said.get("taken"):
            self._window.give(int(taken))
        if size := said.get("resize"):
            rows, columns = (min(max(1, int(size[key])), 0xFFFF) for key in ("rows", "columns"))
            with contextlib.suppress(ShoalError):  # it has not started, or has ended: its outputs tell
                await self._command.resize(rows, columns)

    async def _feed(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                piece = await self._given.get()
                with contextlib.suppress(ShoalError):  # it does not read any more: its outputs tell how it ends
                    if piece is None:
                        await self._command.end_input()
                    else:
                        await self._command.write(piece)
                if piece:
                    await self._socket.send_json({"taken": len(piece)})


@contextlib.asynccontextmanager
async def dialled(
    session: aiohttp.ClientSession,
    where: str,
    argv: Sequence[str],
    *,
    tty: bool,
    server_name: str | None,
    before: str = "",
) -> AsyncGenerator[RemoteCommand]:
    """A command in `where` at the other end of the session, asked for; `before` comes before its path. Raises
    aiohttp.ClientError and OSError."""
    async with session.ws_connect(
        f"{before}{COMMAND_PATH}/{quote(where, safe='')}",  # no query: the API server of Kubernetes drops that
        heartbeat=HEARTBEAT_S,
        max_msg_size=LONGEST_MESSAGE,
        server_hostname=server_name,
    ) as socket:
        yield await RemoteCommand.ask(socket, argv, tty=tty)


class RemoteCommand:
    """A `Command` that runs where the WebSocket leads to; `output` has to be read for anything of it to go on."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._exit_code: int | None = None
        self._window = _Window()
        self._pieces: asyncio.Queue[tuple[str, bytes] | ShoalError | None] = asyncio.Queue()  # at most a window

    @classmethod
    async def ask(cls, socket: aiohttp.ClientWebSocketResponse, argv: Sequence[str], *, tty: bool) -> RemoteCommand:
        """The command, asked for."""
        await socket.send_json({"argv": list(argv), "tty": tty})
        return cls(socket)

    async def output(self) -> AsyncGenerator[tuple[str, bytes]]:
        """Raises what kept it from running, and EngineError where the connection is lost before its end."""
        failure: ShoalError | None = None
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen())
            try:
                with contextlib.suppress(GeneratorExit):  # a group would make an error of it
                    while (piece := await self._pieces.get()) is not None:
                        if isinstance(piece, ShoalError):
                            failure = piece
                            break
                        yield piece
                        await self._send({"taken": len(piece[1])})
            finally:
                listening.cancel()
        if failure is not None:
            raise failure

    async def _listen(self) -> None:
        """Always, so that pings are answered."""
        lost = EngineError("the connection to the command was lost; it may have ended, and it may go on")
        end: ShoalError | None = lost
        async for message in self._socket:
            if message.type is WSMsgType.BINARY:
                self._pieces.put_nowait(parse_channel(cast("bytes", message.data)))
            elif message.type is WSMsgType.TEXT:
                said: dict[str, Any] = json.loads(cast("str", message.data))
                if taken := said.get("taken"):
                    self._window.give(int(taken))
                if "error" in said:
                    end = error_of_kind(said.get("kind", ""), said["error"])
                    break
                if "exit_code" in said:
                    self._exit_code, end = said["exit_code"], None
                    break
        self._window.open()
        self._pieces.put_nowait(end)

    async def write(self, content: bytes) -> None:
        for start in range(0, len(content), WINDOW_BYTES):
            piece = content[start : start + WINDOW_BYTES]
            await self._window.take(len(piece))
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # `output` tells how it ended
                await self._socket.send_bytes(render_channel(STDIN, piece))

    async def end_input(self) -> None:
        await self._send({"end_input": True})

    async def resize(self, rows: int, columns: int) -> None:
        await self._send({"resize": {"rows": rows, "columns": columns}})

    async def exit_code(self) -> int | None:
        return self._exit_code

    def close(self) -> None:
        """Whoever entered the WebSocket leaves it."""

    async def _send(self, said: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # `output` tells how it ended
            await self._socket.send_json(said)
