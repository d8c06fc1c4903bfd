"""A Docker daemon that answers as told, for what a real one does not do on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from shoal.engines.swarm.docker import Endpoint

Answer = tuple[int, Any]


@dataclass
class FakeDocker:
    """`answers` by `METHOD /path` (without the version): a status and what is sent as JSON, or a function of the
    request and its body that gives them. `asked` is what came in: method, path with its version, query, body."""

    answers: dict[str, Answer | Callable[[web.Request, Any], Answer]] = field(default_factory=dict)
    api_version: str | None = "1.47"
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path, dict(request.query), body))
        if request.path == "/_ping":
            headers = {} if self.api_version is None else {"Api-Version": self.api_version}
            return web.Response(text="OK", headers=headers)
        _, _, path = request.path.removeprefix("/").partition("/")
        told = self.answers.get(f"{request.method} /{path}", (404, {"message": "page not found"}))
        status, content = told(request, body) if callable(told) else told
        if isinstance(content, bytes):
            return web.Response(status=status, body=content, content_type="application/octet-stream")
        return web.json_response(content, status=status) if content is not None else web.Response(status=status)

    @asynccontextmanager
    async def listen(self, socket: Path) -> AsyncIterator[Endpoint]:
        """Answers at a Unix socket."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(socket)).start()
            yield Endpoint(f"unix://{socket}", said_by="a test")
        finally:
            await runner.cleanup()
