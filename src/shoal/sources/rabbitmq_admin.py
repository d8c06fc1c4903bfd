"""What people do with queues on RabbitMQ: look at them, empty them, give dead letters another chance.

RabbitMQ shows no message without delivering it, and counts each delivery. A dead letter is put back where it was. A
task that waits is put in anew, at the end of its queue, with as many attempts behind it as before, and the one that was
delivered is acknowledged once that is confirmed: else each look would cost it an attempt, and five its life.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from shoal.core.queued import QueueCounts, QueuedTask
from shoal.core.rabbitmq import RabbitMqAddress, dead_queue_name, exchange_name, queue_name, vhost_of
from shoal.errors import NotFound, no_such_queue
from shoal.sources.amqp import Amqp
from shoal.sources.rabbitmq import list_totals, read_waiting
from shoal.sources.rabbitmq_management import ManagementApi

TASK_ID = "Shoal-Task-Id"
ATTEMPTS = "Shoal-Attempts"
PUBLISHED_AT = "Shoal-Published-At"
LOOK_TIMEOUT_S = 300.0
AT_ONCE = 100


class RabbitMqAdmin:
    """Every method raises BrokerError when the broker is away, and NotFound for a queue that it does not have. `mask`
    takes secrets out of what a worker wrote about a failure."""

    def __init__(self, address: RabbitMqAddress, fleet: str, mask: Callable[[str], str] = str) -> None:
        self._amqp = Amqp(address.url, address.credentials)
        self._management = ManagementApi(address.management_url, address.credentials, vhost_of(address.url))
        self._fleet = fleet
        self._mask = mask

    async def close(self) -> None:
        """Closes the connections."""
        await self._amqp.close()
        await self._management.close()

    async def list(self) -> tuple[QueueCounts, ...]:
        """Every queue of the fleet on the broker, by name. What is in progress may be seconds old."""
        totals = await list_totals(self._management, self._fleet)
        live = {name: queue_name(self._fleet, name) for name in totals}
        dead = {name: dead_queue_name(self._fleet, name) for name in totals}
        waiting = await read_waiting(self._amqp, [*live.values(), *dead.values()])
        return tuple(
            QueueCounts(name, waiting[live[name]], each.taken, waiting[dead[name]])
            for name, each in sorted(totals.items())
        )

    async def peek(self, queue: str, *, dead: bool = False, limit: int = 100) -> tuple[QueuedTask, ...]:
        """The oldest `limit` tasks or dead letters, which stay in their queue."""
        async with self._taken(queue, dead=dead, limit=limit) as (channel, messages):
            tasks = [_task(queue, message, dead=dead, mask=self._mask) for message in messages]
            for some in () if dead else _chunks(messages):
                # In their order: a channel sends one after the other.
                await asyncio.gather(*(self._put_in_anew(channel, queue, message) for message in some))
                for message in some:
                    await _acknowledge(channel, message)
        return tuple(tasks)

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        """Removes all tasks, those too that wait for another attempt, or all dead letters, for good; how many. Tasks
        being worked on are finished."""
        await self._require(queue)
        names = [dead_queue_name(self._fleet, queue)]
        if not dead:
            prefix = f"{queue_name(self._fleet, queue)}.again."
            names = [queue_name(self._fleet, queue), *await self._management.queues(prefix)]
        purged = 0
        async with self._amqp.channel() as channel:
            for name in names:
                purged += (await channel.queue_purge(name)).message_count or 0
        return purged

    async def redrive(self, queue: str, ids: Collection[str] | None = None) -> int:
        """Puts dead letters back into the queue with their attempts at zero; how many. `ids` None: all of them.

        A letter leaves the dead ones once its task is confirmed: a crash between has it in both. One that was written
        twice, by a worker that died in the middle, becomes one task.
        """
        redriven, unknown, deaths = 0, set(ids or ()), set[str]()
        async with self._taken(queue, dead=True, limit=None) as (channel, messages):
            for some in _chunks([each for each in messages if ids is None or _id(each) in ids]):
                tasks: list[Awaitable[None]] = []
                for message in some:
                    death = message.header.properties.message_id or ""
                    if death not in deaths:
                        headers = {TASK_ID: _id(message), PUBLISHED_AT: f"{time.time():.6f}"}
                        tasks.append(self._publish(channel, queue, message, headers))
                    deaths |= {death} - {""}
                    unknown.discard(_id(message))
                await asyncio.gather(*tasks)
                redriven += len(tasks)
                for message in some:
                    await _acknowledge(channel, message)
        if unknown:
            also = f" ({redriven} put back)" if redriven else ""
            raise NotFound(
                f"queue {queue!r}: found no dead letter {', '.join(sorted(unknown))}{also}; expected ids as "
                f"`shoal queue peek {queue} --dead` shows them"
            )
        return redriven

    @asynccontextmanager
    async def _taken(
        self, queue: str, *, dead: bool, limit: int | None
    ) -> AsyncGenerator[tuple[AbstractChannel, list[DeliveredMessage]]]:
        """The oldest messages, delivered to nobody else meanwhile; what is not acknowledged in there is put back."""
        await self._require(queue)
        name = dead_queue_name(self._fleet, queue) if dead else queue_name(self._fleet, queue)
        async with self._amqp.channel(confirms=True, timeout_s=LOOK_TIMEOUT_S) as channel:
            there = (await channel.queue_declare(name, passive=True)).message_count or 0
            messages: list[DeliveredMessage] = []
            while len(messages) < min(there, there if limit is None else limit):
                message = await channel.basic_get(name)
                if message.delivery_tag is None:
                    break
                messages.append(message)
            try:
                yield channel, messages
            finally:
                if messages:  # those that are acknowledged are not the broker's any more
                    await channel.basic_nack(0, multiple=True, requeue=True)

    async def _put_in_anew(self, channel: AbstractChannel, queue: str, message: DeliveredMessage) -> None:
        headers = _headers(message)
        tried = _tried(headers)
        await self._publish(channel, queue, message, {ATTEMPTS: f"{tried}"} if tried else {}, keep=True)

    async def _publish(
        self,
        channel: AbstractChannel,
        queue: str,
        message: DeliveredMessage,
        headers: Mapping[str, str],
        *,
        keep: bool = False,
    ) -> None:
        """To the end of the queue, confirmed; with `keep` as it was, else as a new task."""
        before = message.header.properties
        dropped = ("x-",) if keep else ("x-", "Shoal-")
        kept: dict[str, Any] = {
            name: value for name, value in (before.headers or {}).items() if not name.startswith(dropped)
        }
        properties = Basic.Properties(
            content_type=before.content_type,
            content_encoding=before.content_encoding,
            message_id=(before.message_id if keep else None) or secrets.token_hex(16),
            timestamp=before.timestamp,
            delivery_mode=2,
            headers={**kept, **headers},
        )
        await channel.basic_publish(
            message.body,
            exchange=exchange_name(self._fleet),
            routing_key=queue_name(self._fleet, queue),
            properties=properties,
            mandatory=True,
        )

    async def _require(self, queue: str) -> None:
        known = await list_totals(self._management, self._fleet)
        if queue not in known:
            raise no_such_queue(queue, known)


def _chunks(messages: list[DeliveredMessage]) -> Iterator[list[DeliveredMessage]]:
    return (messages[start : start + AT_ONCE] for start in range(0, len(messages), AT_ONCE))


async def _acknowledge(channel: AbstractChannel, message: DeliveredMessage) -> None:
    assert message.delivery_tag is not None
    await channel.basic_ack(message.delivery_tag)


def _task(queue: str, message: DeliveredMessage, *, dead: bool, mask: Callable[[str], str]) -> QueuedTask:
    headers = _headers(message)
    try:
        payload, encoding = message.body.decode(), "utf-8"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(message.body).decode(), "base64"
    at = message.header.properties.timestamp
    return QueuedTask(
        id=_id(message),
        queue=queue,
        attempts=_count(headers.get(ATTEMPTS)) if dead else min(1, _tried(headers)),
        payload=payload,
        at=at.timestamp() if at is not None else None,
        reason=mask(headers.get("Shoal-Reason") or _reason(message) if dead else ""),
        encoding=encoding,
        traceback=mask(_text(headers.get("Shoal-Traceback", ""))),
    )


def _reason(message: DeliveredMessage) -> str:
    """Why RabbitMQ itself moved it, in its own word (`rejected`, `delivery_limit`, ...)."""
    deaths: Any = (message.header.properties.headers or {}).get("x-death")
    return f"moved by the broker: {deaths[0].get('reason')}" if deaths else ""


def _id(message: DeliveredMessage) -> str:
    return _headers(message).get(TASK_ID) or message.header.properties.message_id or "(none)"


def _headers(message: DeliveredMessage) -> dict[str, str]:
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for name, value in (message.header.properties.headers or {}).items()
    }


def _text(header: str) -> str:
    """What the worker wrote into a header of one line: `\\n` is a line break there."""
    return re.sub(r"\\([n\\])", lambda found: "\n" if found[1] == "n" else "\\", header)


def _tried(headers: Mapping[str, str]) -> int:
    """How often the task was delivered, by earlier copies of it and by this one; before this time."""
    deliveries = max(_count(headers.get(name)) for name in ("x-delivery-count", "x-acquired-count"))
    return _count(headers.get(ATTEMPTS)) + deliveries


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
