"""`/metrics` on a loopback port, where the fleet's `metrics.port` says so: it comes and goes with the fleet."""

from __future__ import annotations

import asyncio
import errno
import os

from aiohttp import web

from shoal.api.metrics import CONTENT_TYPE, render_metrics
from shoal.control.controller import Controller

HOST = "127.0.0.1"
_LOOK_S = 0.5
_PROBLEM = "metrics"


async def serve_metrics(controller: Controller) -> None:
    """Serves until cancelled. A port that is taken is one of the controller's problems, and tried again."""
    served: int | None = None
    runner: web.AppRunner | None = None
    try:
        while True:
            wanted = _wanted_port(controller)
            if wanted != served:
                if runner is not None:
                    await runner.cleanup()
                runner, served = None, None
                if wanted is not None:
                    runner = await _listen(controller, wanted)
                    served = wanted if runner is not None else None
                else:
                    controller.problems.say(_PROBLEM, None)
            await asyncio.sleep(_LOOK_S)
    finally:
        if runner is not None:
            await runner.cleanup()


def _wanted_port(controller: Controller) -> int | None:
    fleet = controller.stored.fleet if controller.stored is not None else None
    return fleet.metrics.port if fleet is not None else None


async def _listen(controller: Controller, port: int) -> web.AppRunner | None:
    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(body=render_metrics(controller), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        await runner.cleanup()
        if not controller.problems.get(_PROBLEM, "").startswith(f"metrics.port: {port} "):  # who has it is asked once
            controller.problems.say(_PROBLEM, await asyncio.to_thread(_why_refused, error, port))
        return None
    controller.problems.say(_PROBLEM, None)
    return runner


def _why_refused(error: OSError, port: int) -> str:
    from shoal.engines.local.listening import listener_on  # noqa: PLC0415 - for the rare case

    other = "set metrics.port to another port"
    if error.errno == errno.EADDRINUSE:
        return f"metrics.port: {port} is used by {listener_on(port) or 'another program'}; stop it, or {other}"
    why = os.strerror(error.errno) if error.errno else str(error)  # asyncio wraps the system's words in its own
    return f"metrics.port: {port} on {HOST} can't be bound: {why}; {other}"
