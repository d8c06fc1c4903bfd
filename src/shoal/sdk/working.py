"""What a worker does with tasks that a broker delivered, whichever broker it is.

Each is worked on when a place is free, and answered for in the end. Stopping, what has not started is handed back at
once if that leaves it all of its attempts but one, the rest may finish within the grace period, and what is left then
is cancelled and handed back too.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from shoal.sdk.handling import call_handler
from shoal.sdk.outcome import Again, Dead, outcome_of, overdelivered, retry_delay_s
from shoal.sdk.task import Task
from shoal.sdk.worker import Worker

log = logging.getLogger("shoal.sdk")

_CANCEL_TIMEOUT_S = 1.0


class Delivered(Protocol):
    """A task as it was delivered; `started` once its handler was called."""

    task: Task
    started: bool


D = TypeVar("D", bound=Delivered)


class Answering(Protocol[D]):
    """Answers for deliveries. `held` are those that still need an answer."""

    @property
    def held(self) -> Mapping[Any, D]: ...

    def take(self, delivery: D) -> bool:
        """Holds a new delivery; False when it is held already, and only came again."""
        ...

    def is_finished(self, delivery: D) -> bool:
        """Whether its task was done, or written to the dead letters, by this worker."""
        ...

    async def is_owed(self, delivery: D) -> bool:
        """Whether the task still is to be done; asked right before."""
        ...

    def release(self, delivery: D) -> None:
        """Nothing more is to be said about it."""
        ...

    async def done(self, delivery: D) -> bool: ...

    async def again(self, delivery: D, delay_s: float) -> None:
        """Has the task delivered again after the delay, as another attempt."""
        ...

    async def dead(self, delivery: D, dead: Dead, error: BaseException | None = None) -> None:
        """Moves it to the dead letters."""
        ...

    async def hand_back(self, delivery: D) -> None: ...

    def can_go_back(self, delivery: D) -> bool:
        """Whether what has not started may be handed back when stopping: where each delivery is an attempt, workers
        that are stopped again and again would make a dead letter of a task that none of them began."""
        ...


class _NotOwed(Exception):
    """Another worker has done the task in the meantime."""


class Working(Generic[D]):
    """The tasks of one worker. `busy` are those received whose handler has not ended yet; `wake` is called whenever
    there may be a free place."""

    def __init__(self, worker: Worker, answers: Answering[D], grace_s: float, wake: Callable[[], None]) -> None:
        self.busy = 0
        self.stopping = False
        self.works: dict[D, asyncio.Task[None]] = {}
        self._worker, self._answers, self._grace_s, self._wake = worker, answers, grace_s, wake
        self._places = asyncio.Semaphore(worker.concurrency)

    def receive(self, delivery: D, group: asyncio.TaskGroup) -> None:
        """Starts to work on what came in, or to hand it back."""
        if not self._answers.take(delivery):
            self._wake()
            return
        self.busy += 1
        self.works[delivery] = group.create_task(self._work(delivery))

    async def drain(self, ask_no_more: Callable[[], Awaitable[None]]) -> None:
        """Hands back what has not started and can go back, lets the rest finish within the grace period, then hands
        that back too.

        `ask_no_more` comes first: what is handed back must not come again.
        """
        self.stopping = True
        deadline = time.monotonic() + self._grace_s
        await ask_no_more()
        for delivery, work in tuple(self.works.items()):
            if not delivery.started and self._answers.can_go_back(delivery):
                work.cancel()
        log.info("stopping: %d tasks are still being worked on", len(self.works))
        if self.works:
            await asyncio.wait(tuple(self.works.values()), timeout=max(0.0, deadline - time.monotonic()))
        left = tuple(self.works.items())
        for delivery, work in left:
            log.warning("%s: not finished within the grace period, handed back", delivery.task)
            work.cancel()
        if left:
            await asyncio.wait([work for _, work in left], timeout=_CANCEL_TIMEOUT_S)
            for delivery in tuple(self._answers.held.values()):
                await self._answers.hand_back(delivery)

    async def _work(self, delivery: D) -> None:
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
                self.busy -= 1
                self._wake()
            if lost is not None and not self._answers.is_finished(delivery):
                await self._answers.dead(delivery, lost)
            elif error is None:
                await self._answers.done(delivery)
            else:
                await self._failed(delivery, error)
        finally:
            self._answers.release(delivery)
            del self.works[delivery]
            self._wake()

    async def _failed(self, delivery: D, error: BaseException) -> None:
        """Again after a growing delay, or to the dead letters after the last attempt or a Reject."""
        task, worker = delivery.task, self._worker
        delay_s = retry_delay_s(
            task.attempt, first_s=worker.retry_delay_s, max_s=worker.retry_delay_max_s, jitter=random.random()
        )
        match outcome_of(error, task, delay_s):
            case Again(delay_s=again_s):
                log.warning(
                    "%s: attempt %d of %d failed, again in %.1f s: %r",
                    task, task.attempt, task.max_attempts, again_s, error, exc_info=error,
                )  # fmt: skip
                await self._answers.again(delivery, again_s)
            case Dead() as dead:
                await self._answers.dead(delivery, dead, error)

    async def _handle(self, delivery: D) -> BaseException | None:
        async with self._places:
            if not await self._answers.is_owed(delivery):
                raise _NotOwed
            if self.stopping and self._answers.can_go_back(delivery):
                raise asyncio.CancelledError
            delivery.started = True
            return await call_handler(self._worker.handler, delivery.task)


def warn_of_stall(late_s: float, pause_s: float) -> None:
    """Says that the event loop was blocked when a heartbeat is late by more than its pause."""
    if late_s > pause_s:
        log.warning(
            "the event loop stood still for %.1f s, and no heartbeat could be sent: "
            "a handler that computes or blocks must be `def`, not `async def`",
            late_s,
        )
