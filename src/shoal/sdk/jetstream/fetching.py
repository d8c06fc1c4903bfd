"""Asks the broker for as many tasks as can start now, and counts what it still owes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shoal.sdk.settings import QueueSettings

log = logging.getLogger("shoal.sdk")

_EXPIRES_S = 10.0
_SILENCE_S = 20.0  # a request that neither brought tasks nor expired by then is lost
_CLOSE_TIMEOUT_S = 2.0
_EXPIRED = "408"


class Fetcher:
    """Pull requests over one inbox, which lives as long as one connection.

    `asked` is how many tasks may still come. `failed` says why no more will come over this inbox.
    """

    def __init__(self, settings: QueueSettings, receive: Callable[[Msg], None], wake: Callable[[], None]) -> None:
        self.asked = 0
        self.failed = ""
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{settings.stream}.{settings.consumer}"
        self._receive = receive
        self._wake = wake
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._requests = 0
        self._heard_at = 0.0

    async def open(self, client: Client) -> None:
        """A new inbox: requests that an earlier connection left behind find nobody there, and are dropped."""
        await self.close()
        self.asked = 0
        self.failed = ""
        self._client = client
        self._inbox = client.new_inbox()
        self._heard_at = time.monotonic()
        self._subscription = await client.subscribe(  # pyright: ignore[reportUnknownMemberType] - nats-py's types
            f"{self._inbox}.*", cb=self._on_message
        )

    async def ask(self, count: int) -> None:
        """Asks for `count` more tasks; they come one by one, as there are any."""
        if self._client is None:
            return
        self._requests += 1
        self.asked += count
        wish = {"batch": count, "expires": int(_EXPIRES_S * 1e9)}
        await self._client.publish(self._subject, json.dumps(wish).encode(), reply=f"{self._inbox}.{self._requests}")

    def check(self, now: float) -> None:
        """Sets `failed` when requests went unanswered for too long; `now` is monotonic."""
        if self.asked > 0 and now - self._heard_at > _SILENCE_S:
            self.failed = f"no answer to a request for tasks in {_SILENCE_S:g} s"

    async def close(self) -> None:
        """Takes the requests back; what was on its way still reaches `receive`. Within two seconds."""
        subscription, self._subscription = self._subscription, None
        if subscription is None or self._client is None or not self._client.is_connected:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await subscription.drain()
        except (TimeoutError, errors.Error, OSError):
            log.warning("the broker did not confirm that no more tasks are wanted")

    async def _on_message(self, message: Msg) -> None:
        self._heard_at = time.monotonic()
        status = (message.headers or {}).get("Status")
        if status is None or message.reply:
            self.asked = max(0, self.asked - 1)
            self._receive(message)
            return
        if status == _EXPIRED:
            pending = (message.headers or {}).get("Nats-Pending-Messages", "1")
            self.asked = max(0, self.asked - int(pending))
        else:
            self.failed = f"{status} {(message.headers or {}).get('Description', '')}".strip()
        self._wake()
