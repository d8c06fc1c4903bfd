"""A controller that answers from values, on a Unix socket, as `shoal.api.views` says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from shoal.api.certificates import Remote
from shoal.api.lines import make_socket_directory
from shoal.api.views import (
    AgentView,
    DecisionView,
    EventView,
    LogView,
    QueueView,
    ReplicaView,
    RunView,
    StatusView,
)
from shoal.core.queued import QueuedTask
from shoal.errors import Conflict, NotFound, ShoalError

NOW = 1_750_000_000.0

INGEST = AgentView(
    name="ingest", kind="service", revision="r1aabbcc99", state="ok", reason="", desired=2, ready=2, starting=0,
    stopping=0, min=1, max=8, url="http://127.0.0.1:8080/ingest", concurrency=3.2, rps=12.5, p95_s=0.083,
    cpu_cores=0.42, memory_bytes=120 * 2**20,
    decision=DecisionView(at=NOW - 60, current=1, count=2, reason="concurrency 31 of 20 a replica", capped_by="",
                          due_at=NOW + 240, proposals=({"trigger": "concurrency", "count": 2, "value": 31.0,
                                                        "target": 20.0, "error": ""},)),
    replicas=(ReplicaView("ingest-r1-0", "r1aabbcc99", "running", True, "127.0.0.1:4001", NOW - 600, 0, ""),
              ReplicaView("ingest-r1-1", "r1aabbcc99", "running", True, "127.0.0.1:4002", NOW - 60, 1, "")),
)  # fmt: skip
IMAGES = AgentView(
    name="image-processing", kind="worker", revision="r2ddeeff00", state="degraded",
    reason="image-processing-r2-0 ended with exit code 3 and waits 8s to be started again", desired=1, ready=0,
    starting=0, stopping=0, min=0, max=10, queue_depth=40.0,
    replicas=(ReplicaView("image-processing-r2-0", "r2ddeeff00", "backoff", False, None, NOW - 5, 4,
                          "exit code 3", last_log=("Traceback: no model", "KeyError: 'MODEL'")),),
)  # fmt: skip
FORECASTING = AgentView(
    name="forecasting", kind="job", revision="r3", state="ok", reason="", desired=0, ready=0, starting=0, stopping=0,
    min=0, max=1, next_run_at=NOW + 3600,
    runs=(RunView("forecasting-20250615T020000", "succeeded", 1, NOW - 5000, NOW - 4900, 0, ""),),
)  # fmt: skip
STATUS = StatusView(
    fleet="warehouse", engine="local", at=NOW, generation=3, observed_generation=3, settled=True,
    gateway_url="http://127.0.0.1:8080", gateways=("gateway-0",), controller_pid=4242,
    agents=(FORECASTING, INGEST, IMAGES),
)  # fmt: skip


class FakeController:
    """Answers as `shoal.api.views` says, from values that a test sets. `calls` holds what was asked of it."""

    def __init__(self) -> None:
        self.status = STATUS
        self.watched: list[StatusView] = [STATUS]
        self.events = [
            EventView(NOW - 30, "ingest", "scaled", "1 -> 2: concurrency 31 of 20 a replica"),
            EventView(NOW - 10, None, "gateway", "the gateway was started again"),
        ]
        self.logs = [
            LogView("ingest-r1-0", "ingest", "hello", at=NOW - 20),
            LogView("image-processing-r2-0", "image-processing", "KeyError: 'MODEL'", "stderr", NOW - 10),
        ]
        self.queues = [QueueView("image_tasks", "main", 40, 2, 3, ("image-processing",))]
        self.tasks = [QueuedTask("17", "image_tasks", 5, '{"image": "a.png"}', NOW - 90, "KeyError: 'MODEL'")]
        self.calls: list[tuple[str, Any]] = []
        self.down_takes_s = 0.0
        self.dies = False  # of `down`, without an answer
        self.stays = False  # streams stay open after their last value
        self.repeats_s: float | None = None  # the last view is watched again and again

    def routes(self) -> web.Application:
        app = web.Application(middlewares=[_errors])
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/watch", self._watch)
        app.router.add_get("/v1/explain/{agent}", self._explain)
        app.router.add_get("/v1/events", self._events)
        app.router.add_get("/v1/logs", self._logs)
        app.router.add_get("/v1/queues", self._queues)
        app.router.add_get("/v1/queues/{queue}/tasks", self._tasks)
        app.router.add_post("/v1/queues/{queue}/{verb}", self._queue)
        app.router.add_post("/v1/{verb}", self._post)
        return app

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        return _json(self.status)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, lambda: self.watched)

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        agent = next((each for each in self.status.agents if each.name == request.match_info["agent"]), None)
        if agent is None:
            raise NotFound(f"no agent {request.match_info['agent']!r}")
        self.calls.append(("explain", dict(request.query)))
        return _json({"decisions": [agent.decision] if agent.decision else []})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(("events", dict(request.query)))
        return await self._stream(request, lambda: self.events)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(("logs", sorted(request.query.items())))
        agents = request.query.getall("agent", [])
        return await self._stream(request, lambda: [line for line in self.logs if not agents or line.agent in agents])

    async def _queues(self, _request: web.Request) -> web.StreamResponse:
        return _json({"queues": self.queues})

    async def _tasks(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(("tasks", dict(request.query)))
        return _json({"tasks": self.tasks})

    async def _queue(self, request: web.Request) -> web.StreamResponse:
        verb, body = request.match_info["verb"], await request.json()
        self.calls.append((verb, body))
        return _json({"purged": 40} if verb == "purge" else {"redriven": 3})

    async def _post(self, request: web.Request) -> web.StreamResponse:
        verb, body = request.match_info["verb"], await request.json()
        self.calls.append((verb, body))
        if verb == "scale":
            if body["agent"] == "busy":
                raise Conflict("somebody else scales it")
            return _json(dataclasses.replace(INGEST, pin=body["count"], pin_until=None))
        if verb == "run":
            return _json({"run_id": f"{body['agent']}-1"})
        if verb == "down":
            await asyncio.sleep(self.down_takes_s)
            if self.dies and request.transport is not None:
                request.transport.close()
            return _json({})
        return _json({"generation": self.status.generation})

    async def _stream(self, request: web.Request, values: Callable[[], list[Any]]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for value in values():
            await response.write((json.dumps(dataclasses.asdict(value)) + "\n").encode())
        while self.repeats_s is not None and request.path == "/v1/watch":
            await asyncio.sleep(self.repeats_s)
            await response.write((json.dumps(dataclasses.asdict(values()[-1])) + "\n").encode())
        while self.stays:
            await asyncio.sleep(0.02)
        return response


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        return await handler(request)
    except ShoalError as error:
        status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, Conflict) else 400
        return web.json_response({"error": type(error).__name__, "message": str(error)}, status=status)


def _json(value: Any) -> web.Response:
    return web.Response(text=json.dumps(value, default=dataclasses.asdict), content_type="application/json")


@contextmanager
def serve(fake: FakeController, socket: Path, remote: Remote | None = None) -> Iterator[FakeController]:
    """Run the fake in a thread with a loop of its own, as the commands run one of theirs; over the network too, where
    `remote` says so."""
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        make_socket_directory(socket)
        application = fake.routes()
        if remote is not None:
            application.middlewares.append(remote.guard())
            application.add_routes(remote.routes(lambda event: fake.calls.append(("note", event.message))))
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        if remote is not None:
            await remote.listen(runner)
        started.set()
        await stop.wait()
        fake.stays, fake.repeats_s = False, None
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(10)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
