"""One connection to the broker that comes back for ever.

nats-py reconnects by itself, but not after every error: a revoked password or a protocol error closes it for good,
and a publish while it is away is buffered rather than refused. This narrows it to what the SDK needs: a client that is
connected now, a request with an answer, and a number that changes with every new connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

log = logging.getLogger("shoal.sdk")

CONNECT_TIMEOUT_S = 5
RECONNECT_WAIT_S = 0.5
PING_INTERVAL_S = 10
CLOSE_TIMEOUT_S = 2.0
_SAME_ERROR_EVERY_S = 30.0


class Link:
    """Connects when it is first needed. `epoch` counts the connections that there were.

    `on_change` is called whenever the connection is lost or comes back.
    """

    def __init__(self, url: str, name: str, on_change: Callable[[], None] = lambda: None) -> None:
        self.epoch = 0
        self._connected_at = 0.0
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._url = url
        self._name = name
        self._user = unquote(urlsplit(url).username or "")
        self._password = unquote(urlsplit(url).password or "")
        self._client: Client | None = None
        self._opening = asyncio.Lock()
        self._waiting: set[asyncio.Timeout] = set()
        self._last_error = ""
        self._last_error_at = 0.0

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    @property
    def connected_s(self) -> float:
        """For how long this connection has been there."""
        return time.monotonic() - self._connected_at

    async def client(self) -> Client:
        """The connected client; waits for as long as the broker is away."""
        while True:
            async with self._opening:
                if self._client is None or self._client.is_closed:
                    self._client = await self._open()
            if self._client.is_connected:
                return self._client
            await self._wait_for_change(RECONNECT_WAIT_S)

    async def request(
        self, subject: str, payload: bytes, *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Msg:
        """One request and its answer; waits for a connection first.

        Raises TimeoutError when there is no answer within `timeout_s`, and at once when the connection is lost: the
        answer is lost with it. Raises nats' `NoRespondersError` when nothing listens there.
        """
        async with asyncio.timeout(timeout_s) as waiting:
            client = await self.client()
            self._waiting.add(waiting)
            try:
                return await client.request(
                    subject, payload, timeout=timeout_s, headers=dict(headers) if headers else None
                )
            except errors.TimeoutError:
                raise TimeoutError from None
            finally:
                self._waiting.discard(waiting)

    async def send(self, subject: str, payload: bytes) -> None:
        """Sends without an answer. Lost when the broker is away: a retry after `ack_wait` is what this is for."""
        if self._client is not None and self._client.is_connected:
            await self._client.publish(subject, payload)

    async def flush(self, timeout_s: float) -> None:
        """Waits until what was sent has arrived, at most `timeout_s`; then gives up without an error."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._client is not None and self._client.is_connected:
                    await self._client.flush()
        except (TimeoutError, errors.Error, OSError):
            log.warning("the broker did not confirm what was sent last")

    async def close(self) -> None:
        """Closes for good, within two seconds."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await client.close()
        except (TimeoutError, errors.Error, OSError):
            log.debug("the connection did not close cleanly", exc_info=True)

    async def _open(self) -> Client:
        client = Client()
        try:
            await client.connect(
                self._url,
                name=self._name,
                user=self._user or None,
                password=self._password or None,
                inbox_prefix=f"_INBOX.{self._user}" if self._user else "_INBOX",
                connect_timeout=CONNECT_TIMEOUT_S,
                reconnect_time_wait=RECONNECT_WAIT_S,  # pyright: ignore[reportArgumentType] - seconds, floats work
                max_reconnect_attempts=-1,
                ping_interval=PING_INTERVAL_S,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_connected,
                closed_cb=self._on_disconnected,
            )
        except BaseException:
            await client.close()
            raise
        await self._on_connected()
        return client

    async def _on_connected(self) -> None:
        self.epoch += 1
        self._connected_at = time.monotonic()
        self._last_error = ""
        if self.epoch > 1:
            log.warning("connected to the broker again")
        self._changed.set()
        self._on_change()

    async def _on_disconnected(self) -> None:
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            if not waiting.expired():  # an error here would be the end of nats-py's reconnecting
                waiting.reschedule(now)
        self._waiting.clear()
        self._changed.set()
        self._on_change()

    async def _on_error(self, error: Exception) -> None:
        """Says an error once, and again after a while if it is still the same: a broker that is away is tried often."""
        text = str(error) or type(error).__name__
        now = time.monotonic()
        if text != self._last_error or now - self._last_error_at >= _SAME_ERROR_EVERY_S:
            self._last_error, self._last_error_at = text, now
            host = urlsplit(self._url)
            log.warning("broker %s:%s: %s", host.hostname, host.port, text)

    async def _wait_for_change(self, timeout_s: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return


def answer_error(answer: Mapping[str, Any]) -> str | None:
    """What JetStream complains about in its answer, or None."""
    error = answer.get("error")
    if not error:
        return None
    return f"{error.get('description', 'refused')} ({error.get('err_code', error.get('code', '?'))})"
