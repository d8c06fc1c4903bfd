"""The controller's HTTP API, as `shoal.api.views` describes it. It asks the controller, and decides nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from shoal.api.client import make_socket_directory
from shoal.api.present import agent_view, decision_view, gateway_url, status_view
from shoal.api.views import EventView, LogView, QueueView
from shoal.control.agent_state import Event
from shoal.control.controller import Controller
from shoal.engines.protocol import LogLine
from shoal.errors import Conflict, ControllerUnavailable, NotFound, ShoalError
from shoal.sources.jetstream_admin import JetStreamAdmin
from shoal.spec.model import Queue

WATCH_INTERVAL_S = 0.2  # how often a watcher is told at most
EVENTS_INTERVAL_S = 0.2
LOG_QUEUE_LINES = 1000
_STATUSES: dict[type[ShoalError], int] = {NotFound: 404, Conflict: 409, ControllerUnavailable: 503}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serve_api(
    controller: Controller, socket: Path, queue_admin: Callable[[], JetStreamAdmin | None]
) -> AsyncGenerator[None]:
    """Answers on the Unix socket (mode 0600) until left. A socket that a dead controller left behind is replaced."""
    application = web.Application(middlewares=[_errors_as_json])
    application.add_routes(_Routes(controller, queue_admin).table())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, handle_signals=False)
    make_socket_directory(socket)
    socket.unlink(missing_ok=True)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(socket)).start()
        socket.chmod(0o600)
        yield
    finally:
        await runner.cleanup()
        socket.unlink(missing_ok=True)


class _Routes:
    def __init__(self, controller: Controller, queue_admin: Callable[[], JetStreamAdmin | None]) -> None:
        self._controller, self._queue_admin = controller, queue_admin

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/status", self.status),
            web.get("/v1/watch", self.watch),
            web.get("/v1/explain/{agent}", self.explain),
            web.get("/v1/events", self.events),
            web.get("/v1/logs", self.logs),
            web.post("/v1/scale", self.scale),
            web.post("/v1/run", self.run),
            web.get("/v1/queues", self.queues),
            web.get("/v1/queues/{queue}/tasks", self.tasks),
            web.post("/v1/queues/{queue}/purge", self.purge),
            web.post("/v1/queues/{queue}/redrive", self.redrive),
            web.post("/v1/apply", self.apply),
            web.post("/v1/down", self.down),
        ]

    async def status(self, _: web.Request) -> web.StreamResponse:
        return _json(status_view(self._controller))

    async def watch(self, request: web.Request) -> web.StreamResponse:
        async def views() -> AsyncIterator[Any]:
            while True:
                yield status_view(self._controller)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._controller.next_change()
                await asyncio.sleep(WATCH_INTERVAL_S)

        return await _stream(request, views())

    async def explain(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["agent"]
        state = self._controller.state_of(name)
        last = _whole(request, "last", 20)
        stored = await self._controller.parts.store.read_decisions(name, last)
        newest = [state.decision] if state.decision is not None and state.decision not in stored[:1] else []
        views = [decision_view(decision) for decision in (*newest, *stored)][:last]
        return _json({"decisions": [dataclasses.asdict(view) for view in views]})

    async def events(self, request: web.Request) -> web.StreamResponse:
        since = _number(request, "since", 0.0) or 0.0
        follow = request.query.get("follow") == "1"

        async def views() -> AsyncIterator[EventView]:
            told: Event | None = None
            while True:
                events = list(self._controller.events)
                start = next((i + 1 for i in range(len(events) - 1, -1, -1) if events[i] is told), 0)
                for event in events[start:]:
                    told = event
                    if event.at >= since:
                        yield EventView(event.at, event.agent, event.kind, event.message)
                if not follow:
                    return
                await asyncio.sleep(EVENTS_INTERVAL_S)

        return await _stream(request, views())

    async def logs(self, request: web.Request) -> web.StreamResponse:
        agents = request.query.getall("agent", []) or sorted(self._controller.states)
        for agent in agents:
            self._controller.state_of(agent)
        follow = request.query.get("follow") == "1"
        since, tail = _number(request, "since", None), _whole(request, "tail", None)
        inspector = self._controller.parts.inspector
        sources = [inspector.logs(agent, follow=follow, since=since, tail=tail) for agent in agents]
        return await _stream(request, _log_views(sources, follow=follow))

    async def scale(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        agent, count = str(body.get("agent")), body.get("count")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
            raise ShoalError(f"count: found {count!r}, expected a whole number of replicas, 0 or more, or null")
        for_s = body.get("for_s")
        self._controller.pin(agent, count, float(for_s) if for_s is not None else None)
        await self._controller.next_change()
        return _json(agent_view(self._controller.state_of(agent), gateway_url(self._controller)))

    async def run(self, request: web.Request) -> web.StreamResponse:
        return _json({"run_id": self._controller.run_job(str((await _body(request)).get("agent")))})

    async def queues(self, _: web.Request) -> web.StreamResponse:
        admin = self._queue_admin()
        stored = self._controller.stored
        fleet = stored.fleet if stored is not None else None
        if admin is None or fleet is None:
            return _json({"queues": []})
        views = [
            QueueView(
                name=counts.name,
                broker=fleet.queues.get(counts.name, Queue()).broker,
                waiting=counts.waiting,
                in_progress=counts.in_progress,
                dead=counts.dead,
                consumers=tuple(name for name, agent in fleet.agents.items() if agent.queue == counts.name),
            )
            for counts in await admin.list()
        ]
        return _json({"queues": [dataclasses.asdict(view) for view in views]})

    async def tasks(self, request: web.Request) -> web.StreamResponse:
        tasks = await self._admin().peek(
            request.match_info["queue"],
            dead=request.query.get("dead") == "1",
            limit=_whole(request, "limit", 10),
        )
        return _json({"tasks": [dataclasses.asdict(task) for task in tasks]})

    async def purge(self, request: web.Request) -> web.StreamResponse:
        dead = bool((await _body(request)).get("dead"))
        return _json({"purged": await self._admin().purge(request.match_info["queue"], dead=dead)})

    async def redrive(self, request: web.Request) -> web.StreamResponse:
        ids = (await _body(request)).get("ids")
        return _json({"redriven": await self._admin().redrive(request.match_info["queue"], ids)})

    async def apply(self, _: web.Request) -> web.StreamResponse:
        stored = await self._controller.parts.store.read_fleet()
        self._controller.apply()
        return _json({"generation": stored.generation if stored is not None else 0})

    async def down(self, request: web.Request) -> web.StreamResponse:
        await self._controller.shut_down(data=bool((await _body(request)).get("volumes")))
        await self._controller.stopped.wait()
        return _json({})

    def _admin(self) -> JetStreamAdmin:
        admin = self._queue_admin()
        if admin is None:
            raise NotFound("this fleet has no queue; an agent with `queue` or `publishes` makes one")
        return admin


async def _log_views(sources: Sequence[AsyncIterator[LogLine]], *, follow: bool) -> AsyncGenerator[LogView]:
    """The lines of several agents: by time where they are read once, as they come where they are followed."""
    if not follow:
        lines = [line for source in sources for line in [each async for each in source]]
        for line in sorted(lines, key=lambda line: line.at or 0.0):
            yield _log_view(line)
        return
    merged: asyncio.Queue[LogLine] = asyncio.Queue(LOG_QUEUE_LINES)

    async def pour(source: AsyncIterator[LogLine]) -> None:
        async for line in source:
            await merged.put(line)

    async with asyncio.TaskGroup() as tasks:
        for source in sources:
            tasks.create_task(pour(source))
        while True:
            yield _log_view(await merged.get())


def _log_view(line: LogLine) -> LogView:
    return LogView(line.replica, line.agent, line.text, line.stream, line.at)


async def _stream(request: web.Request, views: AsyncIterator[Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        async for view in views:
            await response.write(json.dumps(dataclasses.asdict(view)).encode() + b"\n")
    except (ConnectionError, asyncio.CancelledError):
        return response  # the reader left, or the controller ends
    await response.write_eof()
    return response


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ShoalError as error:
        status = _STATUSES.get(type(error), 400)
        return web.json_response({"error": type(error).__name__, "message": str(error)}, status=status)


def _json(value: Any) -> web.Response:
    return web.json_response(dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value)  # pyright: ignore[reportArgumentType] - never a class


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except json.JSONDecodeError as error:
        raise ShoalError(f"the request's body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ShoalError(f"the request's body is a {type(body).__name__}, expected an object")
    return body  # pyright: ignore[reportUnknownVariableType] - JSON


def _number(request: web.Request, name: str, default: float | None) -> float | None:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError as error:
        raise ShoalError(f"{name}: found {text!r}, expected a number") from error


def _whole(request: web.Request, name: str, default: Any) -> Any:
    number = _number(request, name, None)
    return default if number is None else int(number)
