"""Where agents of a case say what they did: a listener beside the tests, which knows nothing of Shoal."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web


class Sink:
    """What was said, in the order in which it came; several kinds of it by a name."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}
        self._base = ""

    def url(self, name: str = "all") -> str:
        """For the variable SINK of an agent: who posts a line there is answered how many there are."""
        return f"{self._base}/{name}"

    def said(self, name: str = "all") -> list[str]:
        """The lines so far."""
        return self.lines.get(name, [])

    @asynccontextmanager
    async def listen(self, host: str) -> AsyncGenerator[Sink]:
        """Takes lines for as long as the block."""
        app = web.Application()
        app.router.add_post("/{name}", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, 0).start()
            self._base = f"http://{host}:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        said = self.lines.setdefault(request.match_info["name"], [])
        said.append(await request.text())
        return web.Response(text=str(len(said)))
