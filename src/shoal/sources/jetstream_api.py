"""JetStream's own API as requests with JSON answers, for Shoal's side of the queues.

nats-py's typed layer hides fields that matter here (metadata, offsets of lists), and its errors are many; one request
function with one error is all that this needs.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from nats import errors
from nats.aio.client import Client

from shoal.errors import BrokerError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 3.0
REQUEST_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
NOT_FOUND = frozenset({10014, 10037, 10059})  # consumer, message, stream


class Refused(BrokerError):
    """JetStream answered with an error; `code` is its `err_code`."""

    def __init__(self, subject: str, code: int, description: str) -> None:
        super().__init__(f"{subject}: {description} ({code})")
        self.code = code


class JetStreamApi:
    """One connection as Shoal's admin user. Connects when first used, comes back by itself."""

    def __init__(self, admin_url: str) -> None:
        split = urlsplit(admin_url)
        self._url = admin_url
        self._where = f"{split.hostname}:{split.port}"
        self._user = unquote(split.username or "")
        self._password = unquote(split.password or "")
        self._client: Client | None = None
        self._opening = asyncio.Lock()
        self._waiting: set[asyncio.Timeout] = set()

    async def call(self, subject: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """The answer to `$JS.API.<subject>`. Raises Refused, or BrokerError when the broker is away or silent."""
        payload = json.dumps(body).encode() if body is not None else b""
        answer = json.loads(await self._request(f"$JS.API.{subject}", payload, None))
        error = answer.get("error")
        if error:
            raise Refused(subject, int(error.get("err_code", 0)), str(error.get("description", "refused")))
        return answer

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Publishes to a stream and waits for its confirmation. Raises as `call`."""
        answer = json.loads(await self._request(subject, payload, dict(headers)))
        error = answer.get("error")
        if error:
            raise Refused(subject, int(error.get("err_code", 0)), str(error.get("description", "refused")))

    async def wait_until_ready(self, timeout_s: float) -> None:
        """Returns once JetStream answers; it does so a little after the port is open. Raises BrokerError in the end."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await self.call("INFO")
                    except BrokerError as error:
                        log.debug("the broker is not ready: %s", error)
                    else:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise BrokerError(f"broker {self._where}: JetStream was not ready within {timeout_s:g} s") from None

    async def close(self) -> None:
        """Closes the connection, within two seconds."""
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def _request(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> bytes:
        try:
            client = await self._connected()
            async with asyncio.timeout(REQUEST_TIMEOUT_S) as waiting:
                self._waiting.add(waiting)
                try:
                    reply = await client.request(subject, payload, timeout=REQUEST_TIMEOUT_S, headers=headers)
                finally:
                    self._waiting.discard(waiting)
        except errors.NoRespondersError:
            raise BrokerError(f"broker {self._where}: nobody answers on {subject}; is JetStream up?") from None
        except (errors.TimeoutError, TimeoutError):
            raise BrokerError(
                f"broker {self._where}: no answer on {subject} ({REQUEST_TIMEOUT_S:g} s, or cut off)"
            ) from None
        except (errors.Error, OSError) as error:
            raise BrokerError(f"broker {self._where}: {error or type(error).__name__}") from error
        return reply.data

    async def _connected(self) -> Client:
        async with self._opening:
            if self._client is None or self._client.is_closed:
                self._client = await self._open()
        if not self._client.is_connected:  # it is being reconnected: say so at once rather than buffer the request
            raise BrokerError(f"broker {self._where}: not connected")
        return self._client

    async def _open(self) -> Client:
        await self._probe()
        client = Client()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    self._url,
                    name="shoal",
                    user=self._user or None,
                    password=self._password or None,
                    connect_timeout=2,
                    reconnect_time_wait=0.2,  # pyright: ignore[reportArgumentType] - seconds, floats work
                    max_reconnect_attempts=-1,
                    error_cb=_log_error,
                    disconnected_cb=self._on_disconnected,
                )
        except TimeoutError:
            reason = client.last_error
            await _close(client)
            raise BrokerError(f"broker {self._where}: can't connect: {reason or 'timeout'}") from None
        except BaseException:
            await _close(client)
            raise
        return client

    async def _on_disconnected(self) -> None:
        """An answer is lost with its connection: nobody should wait for it."""
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            if not waiting.expired():  # an error here would be the end of nats-py's reconnecting
                waiting.reschedule(now)
        self._waiting.clear()

    async def _probe(self) -> None:
        """Says at once that nobody listens; nats-py, told to reconnect for ever, would only go on trying."""
        split = urlsplit(self._url)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(split.hostname, split.port)
        except (TimeoutError, OSError) as error:
            raise BrokerError(f"broker {self._where}: can't connect: {error or 'timeout'}") from None
        writer.close()


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.close()
    except (TimeoutError, errors.Error, OSError):
        log.debug("the connection did not close cleanly", exc_info=True)


async def _log_error(error: Exception) -> None:
    log.debug("broker: %s", error or type(error).__name__)
