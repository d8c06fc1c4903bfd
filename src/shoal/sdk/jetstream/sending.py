"""Sends tasks: confirmed by the broker once they are on disk, tried again under the same key until then."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from nats import errors

from shoal.sdk.jetstream.link import Link, answer_error
from shoal.sdk.outcome import MESSAGE_ID
from shoal.sdk.settings import QueueSettings
from shoal.sdk.task import QueueError

HEADROOM_BYTES = 64 * 1024  # reason and traceback are added when a task dies
_FIRST_ANSWER_TIMEOUT_S = 1.0
_LAST_ANSWER_TIMEOUT_S = 10.0

# nats-py's clients belong to the event loop that they were made in.
_links: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Link]] = WeakKeyDictionary()


async def send_task(
    settings: QueueSettings, payload: bytes, *, id: str | None, headers: Mapping[str, str], timeout_s: float
) -> str:
    """As `shoal.sdk.publish`."""
    links = _links.setdefault(asyncio.get_running_loop(), {})
    link = links.get(settings.url)
    if link is None:
        link = links[settings.url] = Link(settings.url, os.environ.get("SHOAL_AGENT", "agent"))
    key = id or secrets.token_hex(16)
    await publish_confirmed(
        link,
        settings.subject,
        payload,
        {**headers, MESSAGE_ID: key, "Nats-Expected-Stream": settings.stream},
        timeout_s=timeout_s,
        headroom_bytes=HEADROOM_BYTES,
    )
    return key


async def close_links() -> None:
    """Closes this event loop's connections."""
    for link in _links.pop(asyncio.get_running_loop(), {}).values():
        await link.close()


async def publish_confirmed(
    link: Link,
    subject: str,
    payload: bytes,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    headroom_bytes: int = 0,
) -> None:
    """Publishes until the broker confirms; raises QueueError when it refuses, or has not confirmed in `timeout_s`.

    `headers` must hold a `Nats-Msg-Id`, so that what is sent again is not there twice.
    """
    wait_s = _FIRST_ANSWER_TIMEOUT_S
    try:
        async with asyncio.timeout(timeout_s):
            limit = (await link.client()).max_payload - headroom_bytes
            if len(payload) > limit:
                raise QueueError(f"a task of {len(payload)} bytes is too large; at most {limit}: send a reference")
            while True:
                try:
                    reply = await link.request(subject, payload, timeout_s=wait_s, headers=headers)
                except (TimeoutError, OSError, errors.Error):
                    wait_s = min(wait_s * 2, _LAST_ANSWER_TIMEOUT_S)
                    await asyncio.sleep(0.1)  # JetStream answers a little after the port is open
                    continue
                refusal = answer_error(json.loads(reply.data))
                if refusal is not None:
                    raise QueueError(f"{subject}: the broker refused the task: {refusal}")
                return
    except TimeoutError:
        raise QueueError(f"{subject}: the broker did not confirm the task within {timeout_s:g} s") from None
