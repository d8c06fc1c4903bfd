"""The controller's side of the node agents: one stream to each, and what they tell put together.

An agent that is silent says nothing about its containers: whether they are ready stays what it last was.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from shoal.core.signals import Usage
from shoal.engines.command_line import RemoteCommand, dialled
from shoal.engines.swarm.docker.frames import LineSplitter
from shoal.engines.swarm.read import Probe
from shoal.errors import EngineError

logger = logging.getLogger(__name__)

SILENT_S = 2.5  # an agent is heard every half second
_CONNECT_S = 2.0
_AGAIN_S = 0.3
_USAGE_S = 2.0
_KEEP_S = 600.0
_SERVER_NAME = "shoal-node"
_STREAM = aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=SILENT_S)
_BROKEN = (aiohttp.ClientError, OSError, ValueError, KeyError)


@dataclass(slots=True)
class _Node:
    """What one agent told. Times are steady; `heard_at_s` is `None` before its first word."""

    expected_s: float
    address: str | None = None
    heard_at_s: float | None = None
    probes: dict[str, Probe] = field(default_factory=dict[str, Probe])
    told_at_s: dict[str, float] = field(default_factory=dict[str, float])
    following: asyncio.Task[None] | None = None
    followed: str | None = None

    def take(self, line: Mapping[str, Any], now_s: float) -> bool:
        """Whether something is new. Who is not told of any more is kept a while: an agent that begins does not know
        everybody yet."""
        told = {
            one["task"]: Probe(one["ready"], one["ready_at"], one["reason"], ended=one["ended_at"] is not None)
            for one in line["containers"]
        }
        self.told_at_s.update(dict.fromkeys(told, now_s))
        for task in [task for task, at_s in self.told_at_s.items() if now_s - at_s > _KEEP_S]:
            del self.told_at_s[task], self.probes[task]
        new = self.heard_at_s is None or any(self.probes.get(task) != probe for task, probe in told.items())
        self.probes.update(told)
        self.heard_at_s = now_s
        return new


class NodeAgents:
    """`changed` is called whenever something else is known than before. `tls` is the controller's as a client; agents
    on Unix sockets do without."""

    def __init__(
        self,
        changed: Callable[[], None],
        tls: ssl.SSLContext | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._changed = changed
        self._tls = tls
        self._steady = steady
        self._nodes: dict[str, _Node] = {}
        self._moved = asyncio.Event()

    def reach(self, addresses: Mapping[str, str]) -> None:
        """The agents by node id: `HOST:PORT`, or `unix:PATH`. What one that is left out told stays known, so that a new
        agent may take its place."""
        for name in addresses.keys() - self._nodes.keys():
            self._nodes[name] = _Node(expected_s=self._steady())
        for name, node in self._nodes.items():
            node.address = addresses.get(name)
        self._moved.set()

    def probes(self) -> dict[str, Probe]:
        """By task id. Who is not in it was not probed yet, or is not probed at all."""
        return {task: probe for node in self._nodes.values() for task, probe in node.probes.items()}

    def heard(self) -> frozenset[str]:
        """The nodes whose agent has told something since this process began."""
        return frozenset(name for name, node in self._nodes.items() if node.heard_at_s is not None)

    def silent(self) -> frozenset[str]:
        """The nodes whose agent has told nothing for `SILENT_S`."""
        since_s = self._steady() - SILENT_S
        return frozenset(name for name, node in self._nodes.items() if max(_last_s(node), node.expected_s) <= since_s)

    async def run(self) -> None:
        """Keeps the streams, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._moved.clear()
                for name, node in self._nodes.items():
                    if node.followed != node.address:
                        if node.following is not None:
                            node.following.cancel()
                        node.followed = node.address
                        node.following = (
                            group.create_task(self._follow(name, node, node.address)) if node.address else None
                        )
                await self._moved.wait()

    async def usage(self) -> dict[str, Usage]:
        """By task id; absent is who could not be measured, and all of a node whose agent does not answer."""
        nodes = [(name, node.address) for name, node in self._nodes.items() if node.address is not None]
        answers = await asyncio.gather(*(self._usage(name, address) for name, address in nodes))
        return {task: Usage(**use) for answer in answers for task, use in answer.items()}

    @asynccontextmanager
    async def exec(self, node: str, container: str, argv: Sequence[str], *, tty: bool) -> AsyncGenerator[RemoteCommand]:
        """A command in a container of that node. Raises EngineError."""
        address = self._nodes[node].address if node in self._nodes else None
        if address is None:
            raise EngineError(f"node {node} has no agent of the fleet that could run a command there")
        async with AsyncExitStack() as stack:
            try:
                session = await stack.enter_async_context(self._session(address))
                asking = dialled(session, container, argv, tty=tty, server_name=self._server_name)
                command = await stack.enter_async_context(asking)
            except aiohttp.WSServerHandshakeError as error:
                raise EngineError(
                    f"the agent of node {node} refuses a command in {container}: {error.message}"
                ) from error
            except (aiohttp.ClientError, OSError) as error:
                raise EngineError(f"the agent of node {node} can't be reached at {address}: {error}") from error
            yield command

    async def _follow(self, name: str, node: _Node, address: str) -> None:
        silent = False
        while True:
            broken: Exception | None = None
            try:
                async with self._get(address, "/v1/state", _STREAM) as answer:
                    silent, lines = False, LineSplitter()
                    async for piece in answer.content.iter_any():
                        for line in lines.feed(piece):
                            if node.take(json.loads(line), self._steady()):
                                self._changed()
            except _BROKEN as error:
                broken = error
            # Only then: a read may give up a moment before what it read last was taken `SILENT_S` ago.
            await asyncio.sleep(_AGAIN_S)
            if broken and not silent and self._steady() - max(_last_s(node), node.expected_s) >= SILENT_S:
                silent = True
                logger.warning("the agent of node %s at %s is silent: %s", name, address, broken or type(broken))
                self._changed()

    async def _usage(self, name: str, address: str) -> Mapping[str, Any]:
        try:
            async with self._get(address, "/v1/usage", aiohttp.ClientTimeout(total=_USAGE_S)) as answer:
                return (await answer.json())["tasks"]
        except _BROKEN as error:
            logger.info("use on node %s is not known: %s", name, error or type(error))
            return {}

    @asynccontextmanager
    async def _get(
        self, address: str, path: str, patience: aiohttp.ClientTimeout
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        async with (
            self._session(address) as session,
            session.get(path, timeout=patience, raise_for_status=True, server_hostname=self._server_name) as answer,
        ):
            yield answer

    def _session(self, address: str) -> aiohttp.ClientSession:
        if address.startswith("unix:"):
            connector = aiohttp.UnixConnector(address.removeprefix("unix:"))
            return aiohttp.ClientSession("http://node", connector=connector)
        if self._tls is None:
            raise EngineError(f"the agent at {address} takes a certificate of the fleet")
        return aiohttp.ClientSession(f"https://{address}", connector=aiohttp.TCPConnector(ssl=self._tls))

    @property
    def _server_name(self) -> str | None:
        return _SERVER_NAME if self._tls is not None else None


def _last_s(node: _Node) -> float:
    return float("-inf") if node.heard_at_s is None else node.heard_at_s
