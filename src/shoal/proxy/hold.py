"""Keeps requests of an agent that has no replica until it has one: the wake from zero.

Envoy asks for leave (ext_authz) where a route's hold is set and keeps the request, body and all, meanwhile; what we
get is the agent's name. Leave is given once Envoy itself takes an endpoint for healthy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from shoal.errors import GatewayError
from shoal.proxy.admin import Admin
from shoal.proxy.health import healthy_target, parse_healthy
from shoal.proxy.messages import message_class
from shoal.proxy.render_listeners import RETRY_AFTER_S

log = logging.getLogger(__name__)

MOST_HELD = 1000  # an agent
_LOOK_S = 0.003
_AWAY_S = 2.0  # a controller that was away for so long wakes nobody in time
_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True)
class _Waiting:
    """The held requests of one agent; `leave` is set when they may go on."""

    count: int = 0
    leave: asyncio.Event = field(default_factory=asyncio.Event)


class Hold:
    """`endpoints` says which agents have endpoints now; `on_change` is called at once when what is held changes."""

    def __init__(
        self, admin: Admin, hold_s: float, endpoints: Callable[[], Collection[str]], on_change: Callable[[], None]
    ) -> None:
        self._admin = admin
        self._hold_s = hold_s
        self._endpoints = endpoints
        self._on_change = on_change
        self._waiting: dict[str, _Waiting] = {}
        self._some = asyncio.Event()
        self._away_since: float | None = time.monotonic()

    @property
    def held(self) -> dict[str, int]:
        """How many requests wait, by agent."""
        return {agent: waiting.count for agent, waiting in self._waiting.items()}

    def controller(self, connected: bool) -> None:
        """Without a controller nobody will be woken."""
        if connected:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = time.monotonic()

    def handler(self) -> grpc.GenericRpcHandler:
        method: Any = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=message_class("envoy.service.auth.v3.CheckRequest").FromString,
            response_serializer=message_class("envoy.service.auth.v3.CheckResponse").SerializeToString,
        )
        return grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": method})

    async def run(self) -> None:
        """Asks Envoy, often while something is held and not at all otherwise, until cancelled."""
        while True:
            await self._some.wait()
            began = time.monotonic()
            for agent in await self._ready():
                self._waiting.pop(agent, _Waiting()).leave.set()
            if not self._waiting:
                self._some.clear()
            took = time.monotonic() - began
            await asyncio.sleep(max(_LOOK_S, took))  # at most half of Envoy's main thread

    async def _ready(self) -> list[str]:
        with_endpoints = self._endpoints()
        candidates = [agent for agent in self._waiting if agent in with_endpoints]
        if not candidates:
            return []
        try:
            healthy = parse_healthy(await self._admin.get(healthy_target(candidates)))
        except (GatewayError, ValueError) as error:
            log.debug("Envoy does not say who is healthy: %s", error)
            return []
        return [agent for agent in candidates if healthy.get(agent)]

    async def _check(self, request: Any, _context: _Context) -> Any:
        agent = str(request.attributes.context_extensions["agent"])
        waiting = self._waiting.setdefault(agent, _Waiting())
        if waiting.count >= MOST_HELD:
            return _refuse(f"{agent} has no replica yet, and {MOST_HELD} requests wait for it already")
        waiting.count += 1
        self._some.set()
        self._on_change()
        try:
            return await self._wait(agent, waiting)
        finally:
            waiting.count -= 1
            if not waiting.count and self._waiting.get(agent) is waiting:
                del self._waiting[agent]
            self._on_change()

    async def _wait(self, agent: str, waiting: _Waiting) -> Any:
        deadline = time.monotonic() + self._hold_s
        while not waiting.leave.is_set():
            now = time.monotonic()
            if now >= deadline:
                return _refuse(f"{agent} had no healthy replica within {self._hold_s:g} s")
            if self._is_away(now) and agent not in self._endpoints():
                return _refuse(f"{agent} has no replica, and there is no controller to start one")
            try:
                async with asyncio.timeout(min(deadline - now, 0.5)):
                    await waiting.leave.wait()
            except TimeoutError:
                continue
        return _LEAVE

    def _is_away(self, now: float) -> bool:
        return self._away_since is not None and now - self._away_since > _AWAY_S


def _refuse(error: str) -> Any:
    response = message_class("envoy.service.auth.v3.CheckResponse")()
    response.status.code = grpc.StatusCode.UNAVAILABLE.value[0]
    response.denied_response.status.code = 503
    response.denied_response.body = f'{{"error": "{error}"}}\n'
    for key, value in (("retry-after", str(RETRY_AFTER_S)), ("content-type", "application/json")):
        response.denied_response.headers.add().header.MergeFrom(_header(key, value))
    return response


def _header(key: str, value: str) -> Any:
    return message_class("envoy.config.core.v3.HeaderValue")(key=key, value=value)


_LEAVE: Any = message_class("envoy.service.auth.v3.CheckResponse")()
_LEAVE.status.code = 0
