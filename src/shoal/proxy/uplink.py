"""The gateway's side of the line to the controller: for ever, whatever becomes of the controller."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, cast

import grpc
import grpc.aio

from shoal.core.routing import Traffic
from shoal.errors import GatewayError
from shoal.proxy.codec import Delta, dumps, loads
from shoal.proxy.sockets import grpc_address
from shoal.proxy.wire import KEEPALIVE, PATH, Report

log = logging.getLogger(__name__)

_BACK_OFF_S = (0.2, 1.0)
# A write on a call that has just ended is an InvalidStateError.
_EXPECTED = (grpc.aio.AioRpcError, GatewayError, OSError, asyncio.InvalidStateError)


class Told(Protocol):
    """What the gateway process does with what it is told, and says of itself."""

    def receive(self, delta: Delta) -> None:
        """Takes in the snapshot's change; raises GatewayError if it can't be used."""
        ...

    def connected(self, connected: bool) -> None: ...

    def status(self) -> Report:
        """What is to be reported now, with the whole traffic: what was reported already is left out on the way."""
        ...


class Uplink:
    def __init__(self, address: str, name: str, told: Told, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._address = address
        self._name = name
        self._told = told
        self._credentials = credentials
        self._wake = asyncio.Event()
        self._said = ""

    def wake(self) -> None:
        """There is something new to report."""
        self._wake.set()

    async def run(self) -> None:
        """Connects again and again until cancelled."""
        while True:
            # In a task of its own: a task group may leave it behind as one that somebody cancelled (before Python 3.13,
            # where a child fails after the group's body has ended), which must not look like the end of this one.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._try())
            await asyncio.sleep(random.uniform(*_BACK_OFF_S))

    async def _try(self) -> None:
        """One session, and why it ended: said once, not at each of many tries."""
        try:
            await self._session()
            self._said = ""
        except* _EXPECTED as group:
            words = _words(group.exceptions[0])
            if words != self._said:
                log.warning("no controller at %s, serving what is known: %s", self._address, words)
            self._said = words
        except* Exception as group:  # requests are served meanwhile, which an end of this process would end
            words = repr(group.exceptions)
            if words != self._said:
                log.exception("lost the controller at %s by a fault of Shoal's, tries again", self._address)
            self._said = words

    async def _session(self) -> None:
        place = grpc_address(self._address)
        channel = (
            grpc.aio.insecure_channel(place, options=KEEPALIVE)
            if self._credentials is None
            else grpc.aio.secure_channel(place, self._credentials, options=KEEPALIVE)
        )
        async with channel:
            stream = cast("Any", channel).stream_stream(PATH)()
            await stream.write(dumps(Report(name=self._name)))
            try:
                async with asyncio.TaskGroup() as tasks:
                    writer = tasks.create_task(self._report(stream))
                    while (message := await stream.read()) is not grpc.aio.EOF:
                        self._told.connected(True)
                        self._told.receive(loads(Delta, message))
                    writer.cancel()
            finally:
                self._told.connected(False)
                stream.cancel()

    async def _report(self, stream: Any) -> None:
        last = Report()
        while True:
            self._wake.clear()
            now = self._told.status()
            changes = difference(last, now)
            if changes is not None:
                await stream.write(dumps(changes))
                last = now
            await self._wake.wait()


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return (str(error) or type(error).__name__).splitlines()[0]


def difference(last: Report, now: Report) -> Report | None:
    """What of `now` has not been reported, or `None`."""
    traffic: Mapping[str, Traffic] = {
        agent: counts for agent, counts in now.traffic.items() if last.traffic.get(agent) != counts
    }
    gone = tuple(agent for agent in last.traffic if agent not in now.traffic)
    if not traffic and not gone and replace(last, traffic={}, gone=()) == replace(now, traffic={}, gone=()):
        return None
    return replace(now, traffic=traffic, gone=gone)
