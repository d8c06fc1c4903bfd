"""The gateway's side of the line to the controller: for ever, whatever becomes of the controller."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import grpc
import grpc.aio

from shoal.core.routing import Traffic
from shoal.errors import GatewayError
from shoal.proxy.codec import Delta, dumps, loads
from shoal.proxy.sockets import grpc_address
from shoal.proxy.wire import KEEPALIVE, LET_IN, PATH, Report

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


class Keys(Protocol):
    """What we show to the controller, where that is not for a socket's mode to say."""

    async def run(self) -> None:
        """Gets them and renews them, until cancelled."""
        ...

    async def credentials(self) -> grpc.ChannelCredentials:
        """What holds now; waits until there is something."""
        ...

    def options(self) -> Sequence[tuple[str, str | int]]:
        """Whom the channel expects at the other end."""
        ...

    async def renewed(self) -> None:
        """Returns once there are others than `credentials` gave last."""
        ...


class Uplink:
    def __init__(self, address: str, name: str, told: Told, keys: Keys | None = None) -> None:
        self._address = address
        self._name = name
        self._told = told
        self._keys = keys
        self._wake = asyncio.Event()
        self._said = ""
        self._speaking: asyncio.Task[None] | None = None  # the session that is ours now; one before it may be ending

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
        """One session, or one after the other, and why the last ended: said once, not at each of many tries."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._session(tasks, None))
            self._said = ""
        except* _EXPECTED as group:
            words = _words(next(_leaves(group)))
            if words != self._said:
                log.warning("no controller at %s, serving what is known: %s", self._address, words)
            self._said = words
            _let_go(group)
        except* Exception as group:  # requests are served meanwhile, which an end of this process would end
            words = repr(group.exceptions)
            if words != self._said:
                log.exception("lost the controller at %s by a fault of Shoal's, tries again", self._address)
            self._said = words

    async def _session(self, tasks: asyncio.TaskGroup, before: asyncio.Task[None] | None) -> None:
        """Until it ends, or the next one has taken its place: with a new certificate the next is made first, so that
        the controller never misses us."""
        async with await self._channel() as channel:
            stream = cast("Any", channel).stream_stream(PATH)()
            await stream.write(dumps(Report(name=self._name)))
            if before is not None:
                await _let_in(stream)
                before.cancel()
                self._told.connected(False)  # versions are those of one connection
            self._speaking = asyncio.current_task()
            try:
                async with asyncio.TaskGroup() as parts:
                    beside = [parts.create_task(self._report(stream))]
                    if self._keys is not None:
                        beside.append(parts.create_task(self._renew(self._keys, tasks, self._speaking)))
                    while (message := await stream.read()) is not grpc.aio.EOF:
                        self._told.connected(True)
                        self._told.receive(loads(Delta, message))
                    for task in beside:
                        task.cancel()
            finally:
                if self._speaking is asyncio.current_task():
                    self._told.connected(False)
                stream.cancel()

    async def _channel(self) -> grpc.aio.Channel:
        place = grpc_address(self._address)
        if self._keys is None:
            return grpc.aio.insecure_channel(place, options=KEEPALIVE)
        options = (*KEEPALIVE, *self._keys.options())
        return grpc.aio.secure_channel(place, await self._keys.credentials(), options=options)

    async def _renew(self, keys: Keys, tasks: asyncio.TaskGroup, session: asyncio.Task[None] | None) -> None:
        await keys.renewed()
        tasks.create_task(self._session(tasks, session))

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


async def _let_in(stream: Any) -> None:
    """Waits for the controller's word; raises why it refuses."""
    metadata = await stream.initial_metadata()
    if not set(LET_IN) <= {tuple(pair) for pair in metadata}:
        await stream.read()
        raise GatewayError("the controller did not let us in, and does not say why")


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[Any]", each))
        else:
            yield each


def _let_go(error: BaseException) -> None:
    """Of the calls that its frames hold on to: task groups and their errors hold each other until a garbage collection,
    and until then the channel of a call goes on trying to connect, though it is closed."""
    traceback.clear_frames(error.__traceback__)
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[Any]", error).exceptions:
            _let_go(each)


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
