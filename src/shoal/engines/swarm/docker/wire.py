"""HTTP with one daemon: the version agreed on, answers read, refusals and lost connections made Shoal's errors."""

from __future__ import annotations

import asyncio
import json as json_format
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import aiohttp

from shoal.engines.swarm.docker.connection import CONNECT_S, Connections
from shoal.engines.swarm.docker.endpoint import Endpoint
from shoal.engines.swarm.docker.refusals import refusal
from shoal.errors import EngineError, EngineUnavailable

OLDEST, NEWEST = (1, 41), (1, 47)
_ANSWER_S = 30.0
_HEAD_LIMIT_BYTES = 64 * 1024

Params = Mapping[str, object]
Filter = str | Sequence[str]


class Wire:
    """An asynchronous context manager: one HTTP session. Every method raises EngineUnavailable where the daemon can't
    be reached, and DockerError where it refuses."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._connections = Connections(endpoint)
        self._session: aiohttp.ClientSession | None = None
        self._version: tuple[int, int] | None = None
        self._agreeing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=self._connections.connector(),
            timeout=aiohttp.ClientTimeout(total=_ANSWER_S, sock_connect=CONNECT_S),
            headers={"User-Agent": "shoal"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        self._connections.close()

    async def version(self) -> tuple[int, int]:
        """The API version that both sides know; asked for once. Raises EngineError where the daemon is too old."""
        async with self._agreeing:
            if self._version is None:
                self._version = await self._agree()
            return self._version

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        ok: Collection[int] = (),
    ) -> Any:
        """The answer's JSON, its text where it is none, or `None` where it is empty or its status is in `ok`."""
        target = await self._target(path, params)
        async with self._send(method, target, json, headers) as answer:
            body = await answer.read()
            if answer.status in ok:
                return None
            self._accept(method, path, answer.status, body)
            if not body:
                return None
            if "json" in answer.content_type:
                return json_format.loads(body)
            return body.decode(errors="replace")

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, params: Params | None = None
    ) -> AsyncGenerator[aiohttp.StreamReader]:
        """An answer that may never end."""
        target = await self._target(path, params)
        async with self._send(method, target, None, None, endless=True) as answer:
            if answer.status >= 400:
                self._accept(method, path, answer.status, await answer.read())
            yield answer.content

    async def hijack(self, path: str, json: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of its own that after this POST belongs to the caller, both ways."""
        target = urlsplit(await self._target(path, None)).path
        body = json_format.dumps(json).encode()
        head = [
            f"POST {target} HTTP/1.1",
            "Host: docker",
            "User-Agent: shoal",
            "Connection: Upgrade",
            "Upgrade: tcp",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        try:
            reader, writer = await self._connections.open()
        except OSError as error:
            raise self._connections.trouble(error) from error
        try:
            async with asyncio.timeout(_ANSWER_S):
                writer.write("\r\n".join([*head, "", ""]).encode() + body)
                await writer.drain()
                await self._accept_hijack(path, reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            writer.close()
            raise self._connections.trouble(error) from error
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _accept_hijack(self, path: str, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status_line, *fields = head.strip().split("\r\n")
        status = int(status_line.split(" ")[1])
        if status < 400:
            return
        lengths = [value for name, _, value in (field.partition(":") for field in fields) if name == "content-length"]
        body = await reader.readexactly(int(lengths[0])) if lengths else await reader.read(_HEAD_LIMIT_BYTES)
        self._accept("POST", path, status, body)

    def lost(self, error: BaseException) -> EngineUnavailable:
        """The error for a connection that broke while its caller used it."""
        return self._connections.trouble(error)

    async def _target(self, path: str, params: Params | None) -> str:
        """`path` is quoted already."""
        major, minor = await self.version()
        return f"{self._connections.base_url}/v{major}.{minor}{path}{render_query(params or {})}"

    @asynccontextmanager
    async def _send(
        self, method: str, target: str, json: object, headers: Mapping[str, str] | None, *, endless: bool = False
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("Docker is an asynchronous context manager: `async with Docker(endpoint) as docker`")
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S) if endless else self._session.timeout
        try:
            async with self._session.request(method, target, json=json, headers=headers, timeout=timeout) as answer:
                yield answer
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
            raise self._connections.trouble(error) from error

    def _accept(self, method: str, path: str, status: int, body: bytes) -> None:
        if status < 400:
            return
        raise refusal(self.endpoint.host, f"{method} {path}", status, _reason(body))

    async def _agree(self) -> tuple[int, int]:
        async with self._send("GET", f"{self._connections.base_url}/_ping", None, None) as answer:
            self._accept("GET", "/_ping", answer.status, await answer.read())
            theirs = parse_version(answer.headers.get("Api-Version", ""))
        if theirs is None:
            raise EngineError(
                f"{self.endpoint} is no Docker: it tells no API version (named by {self.endpoint.said_by})"
            )
        if theirs < OLDEST:
            raise EngineError(
                f"Docker at {self.endpoint} is too old: it speaks the Engine API {theirs[0]}.{theirs[1]}, and Shoal "
                f"needs {OLDEST[0]}.{OLDEST[1]} (Docker 20.10) or newer; upgrade Docker there"
            )
        return min(NEWEST, theirs)


def parse_version(text: str) -> tuple[int, int] | None:
    """`1.47` as numbers."""
    major, _, minor = text.strip().partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def render_query(params: Params) -> str:
    """As the API reads it: a mapping as JSON, a truth as `true` or `false`, and nothing of what is `None`."""
    values = {
        name: json_format.dumps(value) if isinstance(value, Mapping | bool) else str(value)
        for name, value in params.items()
        if value is not None
    }
    return f"?{urlencode(values)}" if values else ""


def render_filters(labels: Mapping[str, str], filters: Mapping[str, Filter]) -> dict[str, list[str]]:
    """The API's filters: `desired_state="running"` is `{"desired-state": ["running"]}`; labels have to hold all."""
    rendered = {
        name.replace("_", "-"): [value] if isinstance(value, str) else list(value) for name, value in filters.items()
    }
    if labels:
        rendered["label"] = [f"{name}={value}" for name, value in labels.items()]
    return rendered


def _reason(body: bytes) -> str:
    try:
        return str(json_format.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
