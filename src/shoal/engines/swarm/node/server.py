"""What the agent tells, as JSON over HTTP: `/v1/state` (a stream), `/v1/usage`, `/v1/exec` (a WebSocket)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

from aiohttp import WSMsgType, web

from shoal.engines.swarm.docker import ExecSession
from shoal.engines.swarm.node.agent import NodeAgent
from shoal.engines.swarm.node.exec_messages import STDIN, parse_channel, render_channel
from shoal.errors import EngineError

HEARTBEAT_S = 0.5
_LONGEST_EXEC_MESSAGE = 1 << 20
_EXIT_LOOKS, _EXIT_LOOK_S = 20, 0.05


class NodeServer:
    """Routes for one agent. `admit` raises where somebody must not ask."""

    def __init__(self, agent: NodeAgent, admit: Callable[[web.Request], None]) -> None:
        self._agent = agent
        self._admit = admit

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/state", self._state)
        app.router.add_get("/v1/usage", self._usage)
        app.router.add_get("/v1/exec", self._exec)

    async def _state(self, request: web.Request) -> web.StreamResponse:
        """A line now, at each change, and at least every `HEARTBEAT_S`: all containers that are probed."""
        self._admit(request)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async with contextlib.aclosing(self._agent.states.follow(HEARTBEAT_S)) as following:
            async for states in following:
                line = json.dumps({"containers": [asdict(state) for state in states]})
                await response.write(line.encode() + b"\n")
                self._admit(request)  # the connection may outlive its certificate
        return response

    async def _usage(self, request: web.Request) -> web.Response:
        self._admit(request)
        usage = await self._agent.usage()
        return web.json_response({"tasks": {task: asdict(value) for task, value in usage.items()}})

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        """`container`, `arg` (one for each word of the command) and `tty`; see `exec_messages` for what is said."""
        self._admit(request)
        container, argv = request.query.get("container", ""), request.query.getall("arg", [])
        if not argv:
            return web.json_response({"message": "no command: found no `arg`"}, status=400)
        if not self._agent.has(container):
            return web.json_response({"message": f"no container {container!r} of the fleet runs here"}, status=404)
        socket = web.WebSocketResponse(max_msg_size=_LONGEST_EXEC_MESSAGE, heartbeat=10.0)
        await socket.prepare(request)
        try:
            async with self._agent.docker.exec(container, argv, stdin=True, tty="tty" in request.query) as session:
                await _converse(socket, session)
                await socket.send_json({"exit_code": await _exit_code(session)})
        except EngineError as error:
            await socket.send_json({"error": str(error)})
        await socket.close()
        return socket


async def _converse(socket: web.WebSocketResponse, session: ExecSession) -> None:
    """Until the command has closed its outputs, or who asked for it is gone."""
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(_take(socket, session))
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(session.output()) as output:
                async for stream, piece in output:
                    await socket.send_bytes(render_channel(stream, piece))
        taking.cancel()


async def _take(socket: web.WebSocketResponse, session: ExecSession) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            stream, content = parse_channel(cast("bytes", message.data))
            with contextlib.suppress(EngineError):  # it does not read any more: its outputs tell how it ends
                await session.write(content if stream == STDIN else b"")
        elif message.type is WSMsgType.TEXT:
            said: dict[str, Any] = json.loads(cast("str", message.data))
            if said.get("end_input"):
                session.end_input()
            if size := said.get("resize"):
                await session.resize(int(size["rows"]), int(size["columns"]))
    session.close()


async def _exit_code(session: ExecSession) -> int | None:
    """Docker tells it a moment after the outputs are closed; `None` if the command only closed them."""
    for _ in range(_EXIT_LOOKS):
        code = await session.exit_code()
        if code is not None:
            return code
        await asyncio.sleep(_EXIT_LOOK_S)
    return None
