"""What the agent tells, as JSON over HTTP: `/v1/state` (a stream), `/v1/usage`, `/v1/exec` (a WebSocket)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict

from aiohttp import web

from shoal.engines.command_line import COMMAND_PATH, serve_command
from shoal.engines.protocol import Command
from shoal.engines.swarm.node.agent import NodeAgent
from shoal.errors import NotFound

HEARTBEAT_S = 0.5


class NodeServer:
    """Routes for one agent. `admit` raises where somebody must not ask."""

    def __init__(self, agent: NodeAgent, admit: Callable[[web.Request], None]) -> None:
        self._agent = agent
        self._admit = admit

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/state", self._state)
        app.router.add_get("/v1/usage", self._usage)
        app.router.add_get(f"{COMMAND_PATH}/{{container}}", self._exec)

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
        """`container`, and what `command_line` says of it."""
        self._admit(request)
        container = request.match_info["container"]

        @contextlib.asynccontextmanager
        async def run(argv: Sequence[str], tty: bool) -> AsyncGenerator[Command]:
            if not self._agent.has(container):
                raise NotFound(f"no container {container!r} of the fleet runs here")
            async with self._agent.docker.exec(container, argv, stdin=True, tty=tty) as session:
                yield session

        return await serve_command(request, run)
