"""The client of the controller's API: one method a route of `shoal.api.views`, errors as the classes they were.

Streams are async generators; close them (`contextlib.aclosing`) where you stop early.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from shoal.api.decode import decode as decode_view
from shoal.api.lines import Line, SocketLine
from shoal.api.views import AgentView, DecisionView, EventView, LogView, QueueView, StatusView
from shoal.core.queued import QueuedTask
from shoal.errors import ShoalError, error_of_kind
from shoal.http1 import ProtocolError, Response, parse_json, request
from shoal.proxy.sockets import reachable_socket

if TYPE_CHECKING:
    from shoal.engines.command_line import RemoteCommand

ANSWER_TIMEOUT_S = 30.0
COSTLY_S = 0.05  # of this process's time for one status: who watches a thousand agents leaves the machine to them
PAUSE_TO_COST = 10
PAUSE_MAX_S = 2.0

View = TypeVar("View")


def socket_path(directory: Path) -> Path:
    """Where the controller of the fleet in `directory` listens; a short path where that one would be too long."""
    return reachable_socket(directory / "controller.sock", make=False)


class Client:
    """Speaks with the controller at the other end of a line; a path is that of its Unix socket."""

    def __init__(self, line: Path | Line) -> None:
        self._line: Line = SocketLine(line) if isinstance(line, Path) else line

    async def status(self) -> StatusView:
        """The fleet as it is now."""
        return decode(StatusView, await self._call("GET", "/v1/status"))

    async def watch(self) -> AsyncGenerator[StatusView, None]:
        """The fleet as it is now, then again whenever something changed. Of a fleet whose reading takes this process
        long some are left out: what they had is in the next, which comes within a second though nothing changes."""
        async with aclosing(self._lines("/v1/watch")) as lines:
            due, left_out = float("-inf"), b""
            async for line in lines:
                began, used = time.monotonic(), time.process_time()
                left_out = line if began < due else b""
                if not left_out:
                    yield decode(StatusView, parse_json(line))
                    if (cost_s := time.process_time() - used) > COSTLY_S:
                        due = time.monotonic() + min(PAUSE_MAX_S, PAUSE_TO_COST * cost_s)
            if left_out:  # nobody tells what comes after it
                yield decode(StatusView, parse_json(left_out))

    async def explain(self, agent: str, last: int | None = None) -> tuple[DecisionView, ...]:
        """The last decisions about an agent's count, the newest first."""
        target = _target("/v1/explain", agent, query=[] if last is None else [("last", last)])
        answer = await self._call("GET", target)
        return tuple(decode(DecisionView, each) for each in answer["decisions"])

    def events(self, since: float | None = None, *, follow: bool = False) -> AsyncGenerator[EventView, None]:
        """What happened, the oldest first, from an epoch second on."""
        query: list[tuple[str, Any]] = [("follow", int(follow))]
        if since is not None:
            query.append(("since", since))
        return self._stream(EventView, _target("/v1/events", query=query))

    def logs(
        self,
        agents: Sequence[str] = (),
        *,
        follow: bool = False,
        since: float | None = None,
        tail: int | None = None,
    ) -> AsyncGenerator[LogView, None]:
        """Lines of the replicas' output: of all agents, or of those named."""
        query: list[tuple[str, Any]] = [("agent", agent) for agent in agents]
        query.append(("follow", int(follow)))
        query += [(name, value) for name, value in (("since", since), ("tail", tail)) if value is not None]
        return self._stream(LogView, _target("/v1/logs", query=query))

    @asynccontextmanager
    async def exec(self, replica: str, argv: Sequence[str], *, tty: bool) -> AsyncGenerator[RemoteCommand]:
        """A command where this replica runs. What keeps it from running is raised by its `output`."""
        import aiohttp  # noqa: PLC0415 - takes as long as most commands in all

        from shoal.engines.command_line import dialled  # noqa: PLC0415 - so does this

        async with AsyncExitStack() as stack:
            try:
                route = await self._line.route()
                opening = aiohttp.ClientSession(
                    route.url, connector=route.connector, headers=route.preface.headers, proxy=route.proxy
                )
                session = await stack.enter_async_context(opening)
                asking = dialled(
                    session, replica, argv, tty=tty, server_name=route.server_name, before=route.preface.path
                )
                command = await stack.enter_async_context(asking)
            except aiohttp.ClientConnectorError as error:
                raise self._line.absent(error.os_error) from error
            except aiohttp.ClientHttpProxyError as error:  # its own words have the proxy's password
                raise self._line.absent(OSError(f"the proxy answers {error.status} {error.message}")) from None
            except aiohttp.WSServerHandshakeError as error:
                raise ShoalError(f"the controller refuses commands: {error.status} {error.message}") from error
            except (aiohttp.ClientError, OSError) as error:
                raise self._line.absent(error if isinstance(error, OSError) else OSError(str(error))) from error
            yield command

    async def scale(self, agent: str, count: int | None, for_s: float | None = None) -> AgentView:
        """Pin an agent's count, for a time or until released; `None` releases it."""
        body = {"agent": agent, "count": count, "for_s": for_s}
        return decode(AgentView, await self._call("POST", "/v1/scale", body))

    async def run(self, agent: str) -> str:
        """Start one run of a job now; gives its id."""
        return str((await self._call("POST", "/v1/run", {"agent": agent}))["run_id"])

    async def queues(self) -> tuple[QueueView, ...]:
        """Every queue of the fleet."""
        answer = await self._call("GET", "/v1/queues")
        return tuple(decode(QueueView, each) for each in answer["queues"])

    async def tasks(self, queue: str, *, dead: bool = False, limit: int = 10) -> tuple[QueuedTask, ...]:
        """The next tasks of a queue, or its dead letters, without taking them."""
        target = _target("/v1/queues", queue, "tasks", query=[("dead", int(dead)), ("limit", limit)])
        answer = await self._call("GET", target)
        return tuple(decode(QueuedTask, each) for each in answer["tasks"])

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        """Throw away what waits in a queue, or its dead letters; says how many."""
        return int((await self._call("POST", _target("/v1/queues", queue, "purge"), {"dead": dead}))["purged"])

    async def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        """Put dead letters, all or those named, back into their queue; says how many."""
        body = {"ids": None if ids is None else list(ids)}
        return int((await self._call("POST", _target("/v1/queues", queue, "redrive"), body))["redriven"])

    async def apply(self) -> int:
        """Have the controller look at the stored fleet now; gives the generation that it found."""
        return int((await self._call("POST", "/v1/apply", {}))["generation"])

    async def issue_certificate(self, name: str, request_pem: str, life_s: float) -> str:
        """Let somebody use this fleet for a time; gives the certificate (PEM) for the key of his request."""
        body = {"name": name, "request": request_pem, "life_s": life_s}
        return str((await self._call("POST", "/v1/certificates", body))["certificate"])

    async def down(self, *, volumes: bool = False) -> None:
        """Stop everything, however long that takes; the controller ends with it."""
        await self._call("POST", "/v1/down", {"volumes": volumes}, timeout_s=None)

    async def _call(
        self, method: str, target: str, body: object = None, timeout_s: float | None = ANSWER_TIMEOUT_S
    ) -> Any:
        try:
            async with asyncio.timeout(timeout_s), self._request(method, target, body) as response:
                return parse_json(await response.read())
        except TimeoutError as error:
            raise self._line.late(ANSWER_TIMEOUT_S) from error

    async def _stream(self, view: type[View], target: str) -> AsyncGenerator[View, None]:
        async with aclosing(self._lines(target)) as lines:
            async for line in lines:
                yield decode(view, parse_json(line))

    async def _lines(self, target: str) -> AsyncGenerator[bytes, None]:
        async with self._request("GET", target) as response, aclosing(response.lines()) as lines:
            async for line in lines:
                yield line

    @asynccontextmanager
    async def _request(self, method: str, target: str, body: object = None) -> AsyncGenerator[Response]:
        try:
            before = await self._line.preface()
            opened = await self._line.open()
            async with request(opened, method, f"{before.path}{target}", body, before.headers) as response:
                if response.status >= 400:
                    answer = await response.read()
                    raise self._line.refused(response.status, answer) or _parse_error(response.status, answer)
                yield response
        except (OSError, ProtocolError) as error:
            raise self._line.absent(error) from error


def decode(view: type[View], value: Any) -> View:
    """The view that an answer holds; an answer that holds another is that of another version."""
    try:
        return decode_view(view, value)
    except ValueError as error:
        raise ShoalError(
            f"the controller's answer does not fit this version of Shoal ({error}); `shoal up` with the version "
            "that you have starts the controller anew"
        ) from error


def _target(*parts: str, query: Sequence[tuple[str, Any]] = ()) -> str:
    root, *segments = parts
    path = "/".join([root, *(quote(segment, safe="") for segment in segments)])
    return f"{path}?{urlencode(query)}" if query else path


def _parse_error(status: int, body: bytes) -> ShoalError:
    try:
        answer = parse_json(body)
        name, message = str(answer["error"]), str(answer["message"])
    except (ProtocolError, KeyError, TypeError):
        text = body[:200].decode(errors="replace")
        return ShoalError(f"the controller answered {status}, which this version does not understand: {text}")
    return error_of_kind(name, message)
