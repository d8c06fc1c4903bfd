"""Sends tasks: confirmed by the broker once they are in the queue and on disk, tried again until then.

RabbitMQ keeps no list of what came lately: a task that is sent a second time is there twice.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from pamqp.commands import Basic

from shoal.sdk.outcome import TASK_ID
from shoal.sdk.rabbitmq.link import Link, LinkLost, Refused, lost_as_error
from shoal.sdk.rabbitmq.wire import PUBLISHED_AT, properties_of
from shoal.sdk.settings import RabbitMqSettings
from shoal.sdk.task import QueueError

MOST_BYTES = 1024 * 1024  # as on every broker
_AGAIN_S = 0.1
_FOR_GOOD = ("ACCESS_REFUSED",)

# aiormq's connections belong to the event loop that they were made in.
_links: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Link]] = WeakKeyDictionary()


async def send_task(
    settings: RabbitMqSettings, payload: bytes, *, id: str | None, headers: Mapping[str, str], timeout_s: float
) -> str:
    """As `shoal.sdk.publish`."""
    if len(payload) > MOST_BYTES:
        raise QueueError(f"a task of {len(payload)} bytes is too large; at most {MOST_BYTES}: send a reference")
    key = secrets.token_hex(16)
    own = {TASK_ID: id or key, PUBLISHED_AT: f"{time.time():.6f}"}
    properties = properties_of(key, {**headers, **own})
    await publish_confirmed(
        publishing_link(settings), settings.exchange, settings.name, payload, properties, timeout_s=timeout_s
    )
    return id or key


def publishing_link(settings: RabbitMqSettings) -> Link:
    """This event loop's connection for publishing to the broker; `close_links` closes it."""
    links = _links.setdefault(asyncio.get_running_loop(), {})
    link = links.get(settings.url)
    if link is None:
        name = os.environ.get("SHOAL_AGENT", "agent")
        link = links[settings.url] = Link(settings.url, name, lambda: read_credentials(settings), confirms=True)
    return link


async def close_links() -> None:
    """Closes this event loop's connections."""
    for link in _links.pop(asyncio.get_running_loop(), {}).values():
        await link.close()


async def publish_confirmed(
    link: Link, exchange: str, name: str, payload: bytes, properties: Basic.Properties, *, timeout_s: float
) -> None:
    """Publishes until the broker confirms. Raises QueueError when it refuses, or has not confirmed in `timeout_s`."""
    why = ""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    await publish_once(link, exchange, name, payload, properties)
                except Refused as refused:
                    why = str(refused)
                    if why.startswith(_FOR_GOOD):
                        raise QueueError(f"{name}: the broker refused the task: {why}") from None
                except LinkLost as lost:
                    why = str(lost)
                else:
                    return
                await asyncio.sleep(_AGAIN_S)
    except TimeoutError:
        if await link.is_blocked():
            why = "it is low on memory or disk, and takes nothing"
        because = f": {why}" if why else ""
        raise QueueError(f"{name}: the broker did not confirm the task within {timeout_s:g} s{because}") from None


async def publish_once(link: Link, exchange: str, name: str, payload: bytes, properties: Basic.Properties) -> None:
    """Raises LinkLost where it may not have arrived, Refused where it has not."""
    channel = await link.channel()
    async with lost_as_error():
        await channel.basic_publish(payload, exchange=exchange, routing_key=name, properties=properties, mandatory=True)


def read_credentials(settings: RabbitMqSettings) -> tuple[str, str]:
    """User and password, as the secret's file has them now. Raises QueueError."""
    if settings.credentials is None:
        return "guest", "guest"
    try:
        user, colon, password = settings.credentials.read_text().strip().partition(":")
    except OSError as error:
        raise QueueError(f"{settings.credentials} can't be read: {error.strerror}") from None
    if not colon:
        raise QueueError(f"{settings.credentials} does not hold user:password")
    return user, password
