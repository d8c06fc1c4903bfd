"""Runs a worker: fetches what can start at once, keeps it alive, answers for it, and drains.

The rules, each from a fault seen in practice: never fetch more than there are free places, or tasks wait behind a slow
one; tell the broker every third of `ack_wait` that a task is being worked on, or it is given to another worker; hand
back what has not started when stopping, or it waits for `ack_wait`; a failed task waits longer each time, or a poison
task spins; a dead letter is confirmed before the task is acknowledged, or a crash between loses it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from nats import errors
from nats.aio.msg import Msg

from shoal.sdk.delivery import Answers, Delivery, Policy
from shoal.sdk.fetching import Fetcher
from shoal.sdk.handling import call_handler
from shoal.sdk.link import Link, answer_error
from shoal.sdk.outcome import overdelivered
from shoal.sdk.sending import close_links
from shoal.sdk.settings import QueueSettings, read_grace_period_s, read_queue_settings
from shoal.sdk.task import QueueError
from shoal.sdk.worker import Worker

log = logging.getLogger("shoal.sdk")

_POLICY_EVERY_S = 15.0
_LOOK_EVERY_S = 2.0
_PAUSE_MAX_S = 5.0
_CANCEL_TIMEOUT_S = 1.0
_FLUSH_TIMEOUT_S = 1.0


class _NotOwed(Exception):
    """Another worker has done the task in the meantime."""


def run_until_signal(worker: Worker) -> None:
    """Serves in an event loop of its own until SIGTERM or SIGINT."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        try:
            await worker.serve()
        finally:
            await close_links()

    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main())


def warn_of_stall(late_s: float, pause_s: float) -> None:
    """Says that the event loop was blocked when a heartbeat is late by more than its pause."""
    if late_s > pause_s:
        log.warning(
            "the event loop stood still for %.1f s, and no heartbeat could be sent: "
            "a handler that computes or blocks must be `def`, not `async def`",
            late_s,
        )


async def consume(worker: Worker, stopping: asyncio.Event) -> None:
    """Works until `stopping` is set, then drains. Raises QueueError when the agent has no such queue."""
    settings = read_queue_settings(os.environ, worker.queue)
    consumption = Consumption(worker, settings, read_grace_period_s(os.environ))
    await consumption.serve(stopping)


class Consumption:
    """One worker at one queue."""

    def __init__(self, worker: Worker, settings: QueueSettings, grace_s: float) -> None:
        self._worker = worker
        self._settings = settings
        self._grace_s = grace_s
        self._policy = Policy()
        self._tend_now = asyncio.Event()
        self._wake = asyncio.Event()
        self._link = Link(settings.url, os.environ.get("SHOAL_AGENT", "worker"), self._link_changed)
        self._fetcher = Fetcher(settings, self._receive, self._wake.set)
        self._answers = Answers(
            self._link, settings, retry_delay_s=worker.retry_delay_s, retry_delay_max_s=worker.retry_delay_max_s
        )
        self._places = asyncio.Semaphore(worker.concurrency)
        self._busy = 0  # received, and the handler has not ended yet
        self._stopping = False
        self._group = asyncio.TaskGroup()
        self._works: dict[Delivery, asyncio.Task[None]] = {}

    async def serve(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set and everything is finished or handed back."""
        try:
            async with self._group as group:
                tending = [group.create_task(self._fetch()), group.create_task(self._tend())]
                await stopping.wait()
                self._stopping = True
                tending[0].cancel()
                await self._drain()
                tending[1].cancel()
        finally:
            await self._link.flush(_FLUSH_TIMEOUT_S)
            await self._link.close()

    def _link_changed(self) -> None:
        """A new connection starts with heartbeats: `ack_wait` went on while there was none."""
        self._wake.set()
        self._tend_now.set()

    async def _fetch(self) -> None:
        pause_s = 0.25
        while not self._stopping:
            started_at = time.monotonic()
            try:
                await self._fetch_over_one_connection()
            except (QueueError, TimeoutError, OSError, errors.Error) as error:
                log.warning("queue %s: %s", self._settings.queue, error or type(error).__name__)
            pause_s = 0.25 if time.monotonic() - started_at > _PAUSE_MAX_S else min(pause_s * 2, _PAUSE_MAX_S)
            if not self._stopping and self._link.connected:
                await asyncio.sleep(pause_s)

    async def _fetch_over_one_connection(self) -> None:
        client = await self._link.client()
        epoch = self._link.epoch
        info = await self._learn_policy()
        self._answers.alone = not info.get("num_waiting") and not info.get("num_ack_pending")
        await self._fetcher.open(client)
        while not self._stopping and self._link.connected and self._link.epoch == epoch:
            self._fetcher.check(time.monotonic())
            if self._fetcher.failed:
                await self._fetcher.close()
                raise QueueError(f"asking again for tasks: {self._fetcher.failed}")
            self._wake.clear()
            free = self._free() - self._fetcher.asked
            if free > 0:
                await self._fetcher.ask(free)
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _free(self) -> int:
        """How many tasks may come. What is done and not yet acknowledged keeps no place from another, but is bounded
        too: all of it would be done again were this process killed. What an earlier connection brought is not counted:
        a broker that forgot it takes the acknowledgement only once it has delivered it again."""
        concurrency = self._worker.concurrency
        held = sum(delivery.epoch == self._link.epoch for delivery in self._works)
        return min(concurrency - self._busy, 2 * concurrency - held)

    async def _learn_policy(self) -> Mapping[str, Any]:
        name = f"{self._settings.stream}.{self._settings.consumer}"
        try:
            reply = await self._link.request(f"$JS.API.CONSUMER.INFO.{name}", b"", timeout_s=5.0)
        except TimeoutError:
            raise QueueError(f"no answer about {name}: is it this agent's queue?") from None
        except errors.NoRespondersError:
            raise QueueError("the broker is not ready") from None
        answer: Mapping[str, Any] = json.loads(reply.data)
        refusal = answer_error(answer)
        if refusal is not None:
            raise QueueError(f"{name}: {refusal}")
        policy = Policy.from_consumer(answer)
        if policy != self._policy:
            self._policy = policy
            self._tend_now.set()
        return answer

    async def _tend(self) -> None:
        """Heartbeats, and from time to time a look at the queue's rules, which may change under a running worker."""
        looked_at = time.monotonic()
        while True:
            self._tend_now.clear()
            pause_s = self._policy.ack_wait_s / 3
            slept_from = time.monotonic()
            try:
                async with asyncio.timeout(pause_s):
                    await self._tend_now.wait()
            except TimeoutError:
                warn_of_stall(time.monotonic() - slept_from - pause_s, pause_s)
            await self._answers.heartbeat()
            if time.monotonic() - looked_at > _POLICY_EVERY_S and self._link.connected:
                looked_at = time.monotonic()
                try:
                    await self._learn_policy()
                except (QueueError, OSError, errors.Error) as error:
                    log.warning("queue %s: %s", self._settings.queue, error)

    def _receive(self, message: Msg) -> None:
        """Starts to work on what came in, or to hand it back."""
        delivery = Delivery.from_message(message, self._settings, self._policy)
        if not self._answers.take(delivery):
            self._wake.set()
            return
        self._busy += 1
        self._works[delivery] = self._group.create_task(self._work(delivery))

    async def _work(self, delivery: Delivery) -> None:
        try:
            lost = overdelivered(delivery.task)
            settled = lost is not None or self._answers.is_finished(delivery)
            try:
                error = None if settled else await self._handle(delivery)
            except _NotOwed:
                return
            except asyncio.CancelledError:
                await self._answers.hand_back(delivery)
                raise
            finally:
                self._busy -= 1
                self._wake.set()
            if lost is not None and not self._answers.is_finished(delivery):
                await self._answers.dead(delivery, lost)
            elif error is None:
                await self._answers.done(delivery)
            else:
                await self._answers.failed(delivery, error)
        finally:
            self._answers.release(delivery)
            del self._works[delivery]
            self._wake.set()

    async def _handle(self, delivery: Delivery) -> BaseException | None:
        async with self._places:
            if not await self._answers.is_owed(delivery, self._policy.ack_wait_s):
                raise _NotOwed
            if self._stopping:
                raise asyncio.CancelledError
            delivery.started = True
            return await call_handler(self._worker.handler, delivery.task)

    async def _drain(self) -> None:
        """Hands back what has not started, lets the rest finish within the grace period, then hands that back too."""
        deadline = time.monotonic() + self._grace_s
        for delivery, work in tuple(self._works.items()):
            if not delivery.started:
                work.cancel()
        await self._fetcher.close()
        await self._link.flush(_FLUSH_TIMEOUT_S)
        log.info("stopping: %d tasks are still being worked on", len(self._works))
        if self._works:
            await asyncio.wait(tuple(self._works.values()), timeout=max(0.0, deadline - time.monotonic()))
        left = tuple(self._works.items())
        for delivery, work in left:
            log.warning("%s: not finished within the grace period, handed back", delivery.task)
            work.cancel()
        if left:
            await asyncio.wait([work for _, work in left], timeout=_CANCEL_TIMEOUT_S)
            for delivery in tuple(self._answers.held.values()):
                await self._answers.hand_back(delivery)
