"""One connection to RabbitMQ with one channel, which comes back for ever.

A connection either consumes or publishes, never both: a broker that is low on memory or disk stops to read from those
that publish, and acknowledgements sent over them would wait for the end of the alarm.

aiormq, the client, ends what waits on a lost connection with whatever ended it, a cancellation among them. This gives
one error for all of it, `LinkLost`, and a number that changes with every new connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from aiormq import Channel, Connection, exceptions
from aiormq.abc import AbstractChannel

from shoal.sdk.task import QueueError

log = logging.getLogger("shoal.sdk")

CONNECT_TIMEOUT_S = 5.0
RECONNECT_WAIT_S = 0.5
CLOSE_TIMEOUT_S = 2.0
_SAME_ERROR_EVERY_S = 30.0
_LEAST_HEARTBEAT_S = 1

# What it says of each try to connect is said here, once.
logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
logging.getLogger("aiormq.channel").setLevel(logging.CRITICAL)


class LinkLost(Exception):
    """The connection or the channel is gone, and what was asked for with it: it may have happened or not."""


class Refused(LinkLost):
    """The broker said no, and closed the channel; the message is the broker's."""


class Link:
    """Connects when it is first needed. `epoch` counts the channels that there were.

    `credentials` gives user and password, read anew for each connection. A worker that is silent for `silence_s`
    loses its connection, and its tasks. `on_change` is called whenever the channel is lost or comes back.
    """

    def __init__(
        self,
        url: str,
        name: str,
        credentials: Callable[[], tuple[str, str]],
        *,
        confirms: bool,
        silence_s: float = 60.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.epoch = 0
        self._url, self._name, self._credentials, self._confirms = url, name, credentials, confirms
        # The broker gives up after one to two of them without a word.
        self._heartbeat_s = max(_LEAST_HEARTBEAT_S, math.ceil(silence_s / 2))
        self._on_change = on_change
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._last_error = ""
        self._last_error_at = 0.0

    @property
    def connected(self) -> bool:
        return self._channel is not None and not self._channel.is_closed

    async def channel(self) -> AbstractChannel:
        """The channel that is open now; waits for as long as the broker is away."""
        while True:
            async with self._opening:
                if self._channel is not None and not self._channel.is_closed:
                    return self._channel
                try:
                    return await self._open()
                except (LinkLost, QueueError) as error:
                    self._say(str(error))
            await asyncio.sleep(RECONNECT_WAIT_S)

    async def is_blocked(self) -> bool:
        """Whether the broker takes nothing that is published at the moment."""
        if self._connection is None or not self.connected:
            return False
        try:
            async with asyncio.timeout(0.01):
                await self._connection.ready()
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        """Closes for good, within two seconds; what was sent before has arrived when this returns."""
        connection, self._connection, self._channel = self._connection, None, None
        await _close(connection)

    async def _open(self) -> AbstractChannel:
        stale, self._connection, self._channel = self._connection, None, None
        if stale is not None:
            await _close(stale)
        connection = Connection(self._address())
        try:
            async with lost_as_error(), asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()  # pyright: ignore[reportUnknownMemberType] - aiormq's types
                channel = await connection.channel(publisher_confirms=self._confirms)
        except BaseException:
            await _close(connection)
            raise
        self._connection, self._channel = connection, channel
        self.epoch += 1
        self._last_error = ""
        if self.epoch > 1:
            log.warning("connected to the broker again")
        channel.closing.add_done_callback(self._lost)  # pyright: ignore[reportUnknownMemberType] - the same
        self._on_change()
        return channel

    def _lost(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if isinstance(error, exceptions.ChannelClosed) and error.args[0] is not None:  # not by us
            self._say(_words(error))
        self._on_change()

    def _address(self) -> str:
        """The URL as aiormq takes it: with credentials, the heartbeat and a name for people who look at connections."""
        split = urlsplit(self._url)
        user, password = self._credentials()
        vhost = unquote(split.path[1:]) or "/"
        host = f"[{split.hostname}]" if ":" in (split.hostname or "") else split.hostname
        port = split.port or (5671 if split.scheme == "amqps" else 5672)
        return (
            f"{split.scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}/{quote(vhost, safe='')}"
            f"?heartbeat={self._heartbeat_s}&name={quote(self._name, safe='')}"
        )

    def _say(self, text: str) -> None:
        """Says an error once, and again after a while if it is still the same: a broker that is away is tried often."""
        now = time.monotonic()
        if text != self._last_error or now - self._last_error_at >= _SAME_ERROR_EVERY_S:
            self._last_error, self._last_error_at = text, now
            host = urlsplit(self._url)
            log.warning("broker %s:%s: %s", host.hostname, host.port or "", text)


@contextlib.asynccontextmanager
async def lost_as_error() -> AsyncGenerator[None]:
    """Every way in which aiormq says that a connection or a channel is gone, as LinkLost or Refused."""
    task = asyncio.current_task()
    try:
        yield
    except exceptions.ChannelClosed as error:
        raise Refused(_words(error)) from error
    except exceptions.DeliveryError as error:
        raise Refused("nothing takes what is sent there") from error
    except (exceptions.AMQPError, exceptions.ChannelInvalidStateError, OSError, TimeoutError) as error:
        raise LinkLost(_words(error)) from error
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        raise LinkLost("the connection was lost") from error


def _words(error: BaseException | None) -> str:
    if isinstance(error, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError):
        return "the broker refuses user and password"
    text = " ".join(str(argument) for argument in error.args) if error is not None else ""
    return text or type(error).__name__


async def _close(connection: Connection | None) -> None:
    if connection is None:
        return
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            for channel in tuple(connection.channels.values()):
                if isinstance(channel, Channel):
                    await channel.close()
            await connection.close()
    except (exceptions.AMQPError, OSError, RuntimeError, TimeoutError):
        log.debug("the connection did not close cleanly", exc_info=True)
