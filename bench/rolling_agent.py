"""The agent of the rolling campaign: says its version at once, and streams events for as long as it is asked to.

Told to end it takes nothing new and finishes what it has. `PORT`: where it listens; `VERSION`: what it says.
"""

from __future__ import annotations

import asyncio
import os

from aiohttp import web

GRACE_S = 30.0


async def version(_: web.Request) -> web.Response:
    return web.json_response({"version": os.environ["VERSION"], "replica": os.environ.get("SHOAL_REPLICA")})


async def stream(request: web.Request) -> web.StreamResponse:
    """`n` events, ten a second."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(int(request.query["n"])):
        await response.write(f"id: {number}\ndata: {os.environ['VERSION']}\n\n".encode())
        await asyncio.sleep(0.1)
    await response.write_eof()
    return response


def main() -> None:
    application = web.Application()
    application.add_routes([web.get("/stream", stream), web.get("/{path:.*}", version)])
    web.run_app(application, host="127.0.0.1", port=int(os.environ["PORT"]), shutdown_timeout=GRACE_S, print=None)


if __name__ == "__main__":
    main()
