"""The controller's HTTP API, as `shoal.api.views` describes it. It asks the controller, and decides nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from shoal.api.lines import make_socket_directory
from shoal.api.metrics import CONTENT_TYPE as METRICS_TYPE
from shoal.api.metrics import render_metrics
from shoal.api.metrics_port import serve_metrics
from shoal.api.peer import caller_of, own_user_only
from shoal.api.present import agent_view, decision_view, gateway_url
from shoal.api.queue_admins import QueueAdmins
from shoal.api.request_values import number_of, read_body, whole_of
from shoal.api.status_lines import StatusLines
from shoal.api.views import LOG_TAIL_LINES, EventView, LogView, QueueView
from shoal.control.agent_state import Event
from shoal.control.asked import pin, run_job
from shoal.control.controller import Controller
from shoal.engines.command_line import COMMAND_PATH, serve_command
from shoal.engines.protocol import Command, LogLine
from shoal.errors import Conflict, ControllerUnavailable, EngineUnavailable, IdentityError, NotFound, ShoalError
from shoal.spec.model import Queue

if TYPE_CHECKING:
    from shoal.api.certificates import Remote  # with cryptography, which a fleet on one machine does without

log = logging.getLogger(__name__)

EVENTS_INTERVAL_S = 0.2
_STATUSES: dict[type[ShoalError], int] = {
    IdentityError: 403,
    NotFound: 404,
    Conflict: 409,
    ControllerUnavailable: 503,
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serve_api(
    controller: Controller,
    socket: Path,
    queues: QueueAdmins,
    remote: Remote | None = None,
) -> AsyncGenerator[None]:
    """Answers on the Unix socket (mode 0600) until left, and over the network where `remote` says so. A socket that a
    dead controller left behind is replaced. Raises ShoalError where the port can't be listened at.

    Who stops to read ends what answers him; a change that he asked for is finished all the same.
    """
    lines = StatusLines(controller)
    async with asyncio.TaskGroup() as tasks:
        changes: set[asyncio.Task[None]] = set()
        guards = [remote.guard()] if remote is not None else []
        application = web.Application(
            middlewares=[own_user_only, _finish_changes(tasks, changes), errors_as_json, *guards]
        )
        application.add_routes(_Routes(controller, queues, lines).table())
        if remote is not None:
            application.add_routes(remote.routes(controller.note))
        runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=1.0, handle_signals=False, handler_cancellation=True
        )
        make_socket_directory(socket)
        socket.unlink(missing_ok=True)
        await runner.setup()
        beside = [tasks.create_task(lines.keep_time()), tasks.create_task(serve_metrics(controller))]
        try:
            await web.UnixSite(runner, str(socket)).start()
            socket.chmod(0o600)
            if remote is not None:
                await remote.listen(runner)
            yield
        finally:
            await runner.cleanup()
            socket.unlink(missing_ok=True)
            for task in (*beside, *changes):  # clean-up had its time
                task.cancel()


def _finish_changes(tasks: asyncio.TaskGroup, changes: set[asyncio.Task[None]]) -> Middleware:
    """Runs what changes something in a task of its own, which a reader who leaves does not cancel."""

    @web.middleware
    async def finish(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "POST":
            return await handler(request)
        outcome: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()

        async def change() -> None:
            try:
                answer = await handler(request)
            except Exception as error:
                if outcome.done():  # who asked has left
                    log.exception("%s %s", request.method, request.path)
                else:
                    outcome.set_exception(error)
            else:
                if not outcome.done():
                    outcome.set_result(answer)

        task = tasks.create_task(change())
        changes.add(task)
        task.add_done_callback(changes.discard)
        return await outcome

    return finish


class _Routes:
    def __init__(self, controller: Controller, queues: QueueAdmins, lines: StatusLines) -> None:
        self._controller, self._queues, self._lines = controller, queues, lines

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/status", self.status),
            web.get("/v1/watch", self.watch),
            web.get("/metrics", self.metrics),
            web.get("/v1/explain/{agent}", self.explain),
            web.get("/v1/events", self.events),
            web.get("/v1/logs", self.logs),
            web.get(f"{COMMAND_PATH}/{{replica}}", self.exec),
            web.post("/v1/scale", self._by_who_acts(self.scale)),
            web.post("/v1/run", self._by_who_acts(self.run)),
            web.get("/v1/queues", self.queues),
            web.get("/v1/queues/{queue}/tasks", self.tasks),
            web.post("/v1/queues/{queue}/purge", self.purge),
            web.post("/v1/queues/{queue}/redrive", self.redrive),
            web.post("/v1/apply", self._by_who_acts(self.apply)),
            web.post("/v1/down", self._by_who_acts(self.down)),
        ]

    def _by_who_acts(self, handler: Handler) -> Handler:
        """Refuses what another controller, which may act in this one's place, would never know of."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                self._controller.parts.require_right()
            except EngineUnavailable as error:
                raise ControllerUnavailable(f"{error}; try again in some seconds") from error
            return await handler(request)

        return handle

    async def status(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._lines.render(), content_type="application/json")

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=render_metrics(self._controller), headers={"Content-Type": METRICS_TYPE})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        return await _stream(request, self._lines.watch())

    async def explain(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["agent"]
        state = self._controller.state_of(name)
        last = whole_of(request, "last", 20)
        stored = await self._controller.parts.store.read_decisions(name, last)
        newest = [state.decision] if state.decision is not None and state.decision not in stored[:1] else []
        views = [decision_view(decision) for decision in (*newest, *stored)][:last]
        return _json({"decisions": [dataclasses.asdict(view) for view in views]})

    async def events(self, request: web.Request) -> web.StreamResponse:
        since = number_of(request, "since", 0.0) or 0.0
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

        return await _stream(request, _as_lines(views()))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        agents = request.query.getall("agent", []) or sorted(self._controller.states)
        for agent in agents:
            self._controller.state_of(agent)
        follow = request.query.get("follow") == "1"
        since = number_of(request, "since", None)
        tail = whole_of(request, "tail", LOG_TAIL_LINES if since is None else None)
        logs = self._controller.parts.inspector.logs(*agents, follow=follow, since=since, tail=tail)
        async with contextlib.aclosing(logs) as lines:
            return await _stream(request, _as_lines(_log_view(line) async for line in lines))

    async def exec(self, request: web.Request) -> web.StreamResponse:
        replica = request.match_info["replica"]

        @contextlib.asynccontextmanager
        async def run(argv: Sequence[str], tty: bool) -> AsyncGenerator[Command]:
            async with self._controller.parts.inspector.exec(replica, argv, tty=tty) as command:
                said = f"{caller_of(request)} runs {argv[0]} in {replica}"  # the rest may hold a secret
                self._controller.note(Event(time.time(), self._agent_of(replica), "exec", said))
                yield command

        return await serve_command(request, run)

    def _agent_of(self, identity: str) -> str | None:
        for name, state in self._controller.states.items():
            seen = state.observed
            if identity in (*(replica.id for replica in seen.replicas), *(run.run_id for run in seen.runs)):
                return name
        return None

    async def scale(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request)
        agent, count = str(body.get("agent")), body.get("count")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
            raise ShoalError(f"count: found {count!r}, expected a whole number of replicas, 0 or more, or null")
        for_s = body.get("for_s")
        await pin(self._controller, agent, count, float(for_s) if for_s is not None else None)
        return _json(agent_view(self._controller.state_of(agent), gateway_url(self._controller)))

    async def run(self, request: web.Request) -> web.StreamResponse:
        return _json({"run_id": await run_job(self._controller, str((await read_body(request)).get("agent")))})

    async def queues(self, _: web.Request) -> web.StreamResponse:
        stored = self._controller.stored
        fleet = stored.fleet if stored is not None else None
        if fleet is None:
            return _json({"queues": []})
        views = [
            QueueView(
                name=counts.name,
                broker=broker or fleet.queues.get(counts.name, Queue()).broker,
                waiting=counts.waiting,
                in_progress=counts.in_progress,
                dead=counts.dead,
                consumers=tuple(name for name, agent in fleet.agents.items() if agent.queue == counts.name),
            )
            for broker, queues in (await self._queues.list()).items()
            for counts in queues
        ]
        views.sort(key=lambda view: view.name)
        return _json({"queues": [dataclasses.asdict(view) for view in views]})

    async def tasks(self, request: web.Request) -> web.StreamResponse:
        queue = request.match_info["queue"]
        tasks = await self._queues.of(queue).peek(
            queue,
            dead=request.query.get("dead") == "1",
            limit=whole_of(request, "limit", 10),
        )
        return _json({"tasks": [dataclasses.asdict(task) for task in tasks]})

    async def purge(self, request: web.Request) -> web.StreamResponse:
        dead = bool((await read_body(request)).get("dead"))
        queue = request.match_info["queue"]
        return _json({"purged": await self._queues.of(queue).purge(queue, dead=dead)})

    async def redrive(self, request: web.Request) -> web.StreamResponse:
        ids = (await read_body(request)).get("ids")
        queue = request.match_info["queue"]
        return _json({"redriven": await self._queues.of(queue).redrive(queue, ids)})

    async def apply(self, _: web.Request) -> web.StreamResponse:
        stored = await self._controller.parts.store.read_fleet()
        if self._controller.ends:
            raise ControllerUnavailable("this controller has taken the fleet down, and ends; the next one can be told")
        self._controller.apply()
        return _json({"generation": stored.generation if stored is not None else 0})

    async def down(self, request: web.Request) -> web.StreamResponse:
        await self._controller.shut_down(data=bool((await read_body(request)).get("volumes")))
        await self._controller.wait_stopped()
        return _json({})


def _log_view(line: LogLine) -> LogView:
    return LogView(line.replica, line.agent, line.text, line.stream, line.at)


async def _as_lines(views: AsyncIterator[Any]) -> AsyncGenerator[bytes]:
    async for view in views:
        yield json.dumps(dataclasses.asdict(view)).encode() + b"\n"


async def _stream(request: web.Request, lines: AsyncGenerator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    async with contextlib.aclosing(lines):
        try:
            async for line in lines:
                await response.write(line)
        except ConnectionError:
            return response  # the reader left
    await response.write_eof()
    return response


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ShoalError as error:
        status = _STATUSES.get(type(error), 400)
        return web.json_response({"error": type(error).__name__, "message": str(error)}, status=status)


def _json(value: Any) -> web.Response:
    return web.json_response(dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value)  # pyright: ignore[reportArgumentType] - never a class
