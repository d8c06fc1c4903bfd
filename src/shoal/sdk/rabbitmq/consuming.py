"""Runs a worker on RabbitMQ: takes as many tasks as can start at once, answers for them, and drains.

The broker hands out `concurrency` tasks and no more until one is answered for. It takes them back when the connection
is gone, or silent for `ack_wait`; and, whatever the worker does, when a task takes longer than the broker's consumer
timeout, 30 minutes by default. RabbitMQ since 3.12 lets a consumer name its own, and this one does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

from aiormq import Channel
from aiormq.abc import DeliveredMessage

from shoal.sdk.rabbitmq.answers import Answers, Delivery
from shoal.sdk.rabbitmq.link import Link, LinkLost, Refused, lost_as_error
from shoal.sdk.rabbitmq.sending import publishing_link, read_credentials
from shoal.sdk.settings import RabbitMqSettings
from shoal.sdk.worker import Worker
from shoal.sdk.working import Working, warn_of_stall

log = logging.getLogger("shoal.sdk")

_LONGEST_TASK_MS = 2**31 - 1  # 24 days
_PAUSE_S, _PAUSE_MAX_S = 0.25, 5.0
_CANCEL_TIMEOUT_S = 2.0
_CONSUMER = "worker"


class Consumption:
    """One worker at one queue."""

    def __init__(self, worker: Worker, settings: RabbitMqSettings, grace_s: float) -> None:
        self._settings, self._concurrency = settings, worker.concurrency
        self._changed = asyncio.Event()
        self._link = Link(
            settings.url,
            os.environ.get("SHOAL_AGENT", "worker"),
            lambda: read_credentials(settings),
            confirms=False,
            silence_s=settings.ack_wait_s,
            on_change=self._changed.set,
        )
        self._answers = Answers(
            publishing_link(settings),
            settings,
            retry_delay_max_s=worker.retry_delay_max_s,
        )
        self._working = Working(worker, self._answers, grace_s, lambda: None)
        self._group = asyncio.TaskGroup()
        self._late: list[Delivery] = []

    async def serve(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set and everything is finished or handed back."""
        try:
            async with self._group as group:
                tending = [group.create_task(self._consume()), group.create_task(self._watch_loop())]
                await stopping.wait()
                self._working.stopping = True
                tending[0].cancel()
                await self._working.drain(self._ask_no_more)
                tending[1].cancel()
        finally:
            await self._link.close()

    async def _consume(self) -> None:
        """Consumes, and does so anew whenever the channel is lost."""
        pause_s = _PAUSE_S
        while True:
            started_at = time.monotonic()
            try:
                await self._consume_on_one_channel()
            except Refused as refused:
                log.warning("queue %s: %s", self._settings.queue, refused)
            except LinkLost as lost:
                log.debug("queue %s: %s", self._settings.queue, lost)
            pause_s = _PAUSE_S if time.monotonic() - started_at > _PAUSE_MAX_S else min(pause_s * 2, _PAUSE_MAX_S)
            await asyncio.sleep(pause_s)

    async def _consume_on_one_channel(self) -> None:
        channel = await self._link.channel()
        async with lost_as_error():
            await channel.basic_qos(prefetch_count=self._concurrency)
            await channel.basic_consume(
                self._settings.name,
                self._receive,
                consumer_tag=_CONSUMER,
                arguments={"x-consumer-timeout": _LONGEST_TASK_MS},
            )
        while not channel.is_closed:
            self._changed.clear()
            if (
                isinstance(channel, Channel) and _CONSUMER not in channel.consumers
            ):  # the queue was removed, or moved to another node
                await channel.close()
                raise Refused("the broker does not deliver any more; asking again")
            try:
                async with asyncio.timeout(_PAUSE_MAX_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _receive(self, message: DeliveredMessage) -> None:
        delivery = Delivery.from_message(message, self._settings)
        if self._working.stopping:
            self._late.append(delivery)
        else:
            self._working.receive(delivery, self._group)

    async def _ask_no_more(self) -> None:
        """What is on its way still reaches `_receive`, and is handed back when no more comes: before, the broker would
        deliver it here again and again, each time for one attempt."""
        if not self._link.connected:
            return
        channel = await self._link.channel()
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_S), lost_as_error():
                await channel.basic_cancel(_CONSUMER)
        except (TimeoutError, LinkLost):
            log.warning("the broker did not confirm that no more tasks are wanted")
        await asyncio.sleep(0)
        for delivery in self._late:
            await self._answers.hand_back(delivery)

    async def _watch_loop(self) -> None:
        """Heartbeats are sent from the event loop: one that stands still is worth a word."""
        pause_s = self._settings.ack_wait_s / 3
        while True:
            slept_from = time.monotonic()
            await asyncio.sleep(pause_s)
            warn_of_stall(time.monotonic() - slept_from - pause_s, pause_s)
