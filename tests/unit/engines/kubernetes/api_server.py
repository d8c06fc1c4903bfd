"""An API server of answers that are given beforehand, on a port of 127.0.0.1."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.tls_keys import listening


@dataclass
class Answer:
    """`lines` are sent as a watch sends them, in place of `body`; with `cut` the connection breaks off after them."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    lines: Sequence[Any] = ()
    cut: bool = False


@dataclass(frozen=True)
class Asked:
    what: str  # method and path
    headers: Mapping[str, str]
    params: Mapping[str, str]
    body: Any


class ApiServer:
    """Gives the answers to one `METHOD /path` after the other, the last one again and again; `asked` is what came."""

    def __init__(self, answers: Mapping[str, Answer | Sequence[Answer]]) -> None:
        self._answers = {what: [given] if isinstance(given, Answer) else list(given) for what, given in answers.items()}
        self.asked: list[Asked] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        content, what = await request.read(), f"{request.method} {request.path}"
        body = json.loads(content) if content else None
        self.asked.append(Asked(what, request.headers, request.query, body))
        given = self._answers[what]
        answer = given.pop(0) if len(given) > 1 else given[0]
        if not answer.lines:
            return web.json_response(answer.body, status=answer.status, headers=answer.headers)
        response = web.StreamResponse(status=answer.status)
        response.enable_chunked_encoding()
        await response.prepare(request)
        for line in answer.lines:
            await response.write(json.dumps(line).encode() + b"\n")
        if answer.cut:
            assert request.transport is not None
            request.transport.abort()
        return response


@asynccontextmanager
async def listen(server: ApiServer, keys: Path | None = None) -> AsyncGenerator[str]:
    """Its URL; with `keys` it has TLS, and lets nobody in without a certificate."""
    async with listening(server.answer, keys) as port:
        yield f"http{'s' if keys is not None else ''}://127.0.0.1:{port}"
