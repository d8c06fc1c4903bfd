"""One delivered task and how it is answered for on RabbitMQ.

An acknowledgement has no answer, and is lost with its connection: then the broker delivers the task again, to this
worker or another one. What this one has finished lately, it knows, and does not run again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage

from shoal.sdk.outcome import MESSAGE_ID, Dead, dead_letter_headers
from shoal.sdk.rabbitmq.link import Link, LinkLost, Refused, lost_as_error
from shoal.sdk.rabbitmq.sending import publish_once
from shoal.sdk.rabbitmq.wire import Mark, again_headers, mark_of, properties_of, task_of, waiting_queue
from shoal.sdk.settings import RabbitMqSettings
from shoal.sdk.task import Task

log = logging.getLogger("shoal.sdk")

_FINISHED_KEPT = 4096
_WRITE_TIMEOUT_S = 30.0
_AGAIN_S = 0.5
_HEADER_ROOM_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class Delivery:
    """A task as it was delivered on `channel` under `tag`. `message_id` is empty where the message has none."""

    task: Task
    message_id: str
    mark: Mark | None
    channel: AbstractChannel
    tag: int
    started: bool = False

    @classmethod
    def from_message(cls, message: DeliveredMessage, settings: RabbitMqSettings) -> Delivery:
        task = task_of(message, settings)
        assert message.delivery_tag is not None
        message_id = message.header.properties.message_id or ""
        return cls(task, message_id, mark_of(message, task), message.channel, message.delivery_tag)


class Answers:
    """Answers for deliveries. What is written for them (dead letters, tasks that wait) goes over `publisher`, a
    connection of its own."""

    def __init__(self, publisher: Link, settings: RabbitMqSettings, *, retry_delay_max_s: float) -> None:
        self._publisher, self._settings = publisher, settings
        self._max_s = retry_delay_max_s
        self.held: dict[Mark | Delivery, Delivery] = {}
        self._finished: dict[Mark, None] = {}  # in order of time
        self._declared: set[tuple[int, str]] = set()  # by connection

    def take(self, delivery: Delivery) -> bool:
        """Holds a new delivery. False when it is held already: from now on it is answered for by its new tag."""
        earlier = self.held.get(delivery.mark or delivery)
        if earlier is not None:
            earlier.channel, earlier.tag = delivery.channel, delivery.tag
            return False
        self.held[delivery.mark or delivery] = delivery
        return True

    def is_finished(self, delivery: Delivery) -> bool:
        """Whether its task was done, or written elsewhere, by this worker."""
        return delivery.mark in self._finished

    async def is_owed(self, delivery: Delivery) -> bool:
        """RabbitMQ can't be asked for one task; what it delivers is to be done."""
        return not delivery.channel.is_closed

    def release(self, delivery: Delivery) -> None:
        """Nothing more is to be said about it."""
        self.held.pop(delivery.mark or delivery, None)

    async def done(self, delivery: Delivery) -> bool:
        """Acknowledges; False when the connection it came by is gone. Then it may be done again by another worker."""
        self._finish(delivery)
        try:
            async with lost_as_error():
                await delivery.channel.basic_ack(delivery.tag)
        except LinkLost:
            log.warning("%s: done, but the connection was lost before the broker knew; it may be done again",
                        delivery.task)  # fmt: skip
            return False
        finally:
            self.release(delivery)
        return True

    async def hand_back(self, delivery: Delivery) -> None:
        """Has the task delivered again at once. If this is lost, so is the connection, and that has the same effect."""
        self.release(delivery)
        try:
            async with lost_as_error():
                await delivery.channel.basic_nack(delivery.tag, requeue=True)
        except LinkLost:
            return

    def can_go_back(self, delivery: Delivery) -> bool:
        """Always: an attempt is what was written as one."""
        return True

    async def dead(self, delivery: Delivery, dead: Dead, error: BaseException | None = None) -> None:
        """Writes the dead letter, waits until it is safe, and only then acknowledges the task."""
        task = delivery.task
        log.error("%s: to the dead letters: %s", task, dead.reason, exc_info=error)
        room = _HEADER_ROOM_BYTES - sum(len(name) + len(value) + 4 for name, value in task.headers.items())
        headers = dead_letter_headers(
            task, dead.reason, error, key="", agent=os.environ.get("SHOAL_AGENT", ""), room_bytes=room
        )
        del headers[MESSAGE_ID]
        key = f"dead:{delivery.message_id}:{task.published_at:.6f}" if delivery.mark else ""
        if await self._write(delivery, self._settings.dead_name, headers, message_id=key):
            await self.done(delivery)
        else:
            await self._hand_back_later(delivery, self._max_s)

    async def again(self, delivery: Delivery, delay_s: float) -> None:
        """Moves the task into the queue for its delay: written with confirmation, then acknowledged."""
        name, arguments = waiting_queue(self._settings, delay_s)
        headers = again_headers(delivery.task)
        if await self._write(
            delivery, name, headers, message_id=delivery.message_id, arguments=arguments, expires_s=delay_s
        ):
            await self.done(delivery)
        else:
            await self._hand_back_later(delivery, delay_s)

    async def _write(
        self,
        delivery: Delivery,
        name: str,
        headers: dict[str, str],
        *,
        message_id: str,
        arguments: dict[str, Any] | None = None,
        expires_s: float | None = None,
    ) -> bool:
        """Whether the task is safe under `name`. Given up with the connection that it came by: then the broker delivers
        it again, and writing it too would have it twice."""
        properties = properties_of(message_id, headers, expires_s=expires_s)
        why = "the broker did not confirm it"
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                while not delivery.channel.is_closed:
                    try:
                        if arguments is not None:
                            await self._declare(name, arguments)
                        await publish_once(
                            self._publisher, self._settings.exchange, name, delivery.task.data, properties
                        )
                    except (LinkLost, Refused) as lost:
                        why = str(lost)
                        await asyncio.sleep(_AGAIN_S)
                    else:
                        return True
        except TimeoutError:
            pass
        if not delivery.channel.is_closed:
            log.error("%s: could not be written to %s, and stays in its queue: %s", delivery.task, name, why)
        return False

    async def _declare(self, name: str, arguments: dict[str, Any]) -> None:
        """Makes a queue for waiting, once a connection."""
        channel = await self._publisher.channel()
        if (self._publisher.epoch, name) in self._declared:
            return
        async with lost_as_error():
            await channel.queue_declare(name, durable=True, arguments=arguments)
            await channel.queue_bind(name, self._settings.exchange, name)
        self._declared.add((self._publisher.epoch, name))

    async def _hand_back_later(self, delivery: Delivery, delay_s: float) -> None:
        """Keeps the place for the delay, so that a broker that takes nothing is not kept busy with one task."""
        delay_s = 0.0 if delivery.channel.is_closed else delay_s
        await asyncio.sleep(delay_s)
        await self.hand_back(delivery)

    def _finish(self, delivery: Delivery) -> None:
        if delivery.mark is None:
            return
        self._finished[delivery.mark] = None
        if len(self._finished) > _FINISHED_KEPT:
            del self._finished[next(iter(self._finished))]
