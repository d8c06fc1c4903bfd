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
import time
from collections.abc import Mapping
from typing import Any

from nats import errors
from nats.aio.msg import Msg

from shoal.sdk.jetstream.delivery import Answers, Delivery, Policy
from shoal.sdk.jetstream.fetching import Fetcher
from shoal.sdk.jetstream.link import Link, answer_error
from shoal.sdk.settings import QueueSettings
from shoal.sdk.task import QueueError
from shoal.sdk.worker import Worker
from shoal.sdk.working import Working, warn_of_stall

log = logging.getLogger("shoal.sdk")

_POLICY_EVERY_S = 15.0
_LOOK_EVERY_S = 2.0
_PAUSE_MAX_S = 5.0
_FLUSH_TIMEOUT_S = 1.0


class Consumption:
    """One worker at one queue."""

    def __init__(self, worker: Worker, settings: QueueSettings, grace_s: float) -> None:
        self._worker = worker
        self._settings = settings
        self._policy = Policy()
        self._tend_now = asyncio.Event()
        self._wake = asyncio.Event()
        self._link = Link(settings.url, os.environ.get("SHOAL_AGENT", "worker"), self._link_changed)
        self._fetcher = Fetcher(settings, self._receive, self._wake.set)
        self._answers = Answers(self._link, settings, retry_delay_max_s=worker.retry_delay_max_s)
        self._working = Working(worker, self._answers, grace_s, self._wake.set)
        self._group = asyncio.TaskGroup()

    async def serve(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set and everything is finished or handed back."""
        try:
            async with self._group as group:
                tending = [group.create_task(self._fetch()), group.create_task(self._tend())]
                await stopping.wait()
                self._working.stopping = True
                tending[0].cancel()
                await self._working.drain(self._ask_no_more)
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
        while not self._working.stopping:
            started_at = time.monotonic()
            try:
                await self._fetch_over_one_connection()
            except (QueueError, TimeoutError, OSError, errors.Error) as error:
                log.warning("queue %s: %s", self._settings.queue, error or type(error).__name__)
            pause_s = 0.25 if time.monotonic() - started_at > _PAUSE_MAX_S else min(pause_s * 2, _PAUSE_MAX_S)
            if not self._working.stopping and self._link.connected:
                await asyncio.sleep(pause_s)

    async def _fetch_over_one_connection(self) -> None:
        client = await self._link.client()
        epoch = self._link.epoch
        info = await self._learn_policy()
        self._answers.alone = not info.get("num_waiting") and not info.get("num_ack_pending")
        await self._fetcher.open(client)
        while not self._working.stopping and self._link.connected and self._link.epoch == epoch:
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
        held = sum(delivery.epoch == self._link.epoch for delivery in self._working.works)
        return min(concurrency - self._working.busy, 2 * concurrency - held)

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
            self._policy, self._answers.ack_wait_s = policy, policy.ack_wait_s
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
        self._working.receive(Delivery.from_message(message, self._settings, self._policy), self._group)

    async def _ask_no_more(self) -> None:
        await self._fetcher.close()
        await self._link.flush(_FLUSH_TIMEOUT_S)
