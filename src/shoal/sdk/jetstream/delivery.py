"""One delivered task and how it is answered for, by JetStream's acknowledgement protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nats import errors
from nats.aio.msg import Msg

from shoal.sdk.jetstream.link import Link
from shoal.sdk.jetstream.sending import publish_confirmed
from shoal.sdk.outcome import Dead, dead_letter_headers, dead_letter_key, task_id
from shoal.sdk.settings import QueueSettings
from shoal.sdk.task import QueueError, Task

log = logging.getLogger("shoal.sdk")

DEFAULT_MAX_ATTEMPTS = 5  # of a consumer that Shoal did not make
_ANSWER_WAIT_S, _ANSWER_WAIT_MAX_S = 0.5, 5.0  # a broker that does not know the delivery answers nothing
_ANSWER_TRIES = 40
_OWED_TIMEOUT_S = 2.0
_SETTLE_S = 1.5  # two answers' time
_NO_MESSAGE = 10037
_FINISHED_KEPT = 4096
_DEAD_LETTER_TIMEOUT_S = 30.0
_HEADERS_BYTES = 2048  # names, ids and times, beside reason and traceback


@dataclass(frozen=True, slots=True)
class Policy:
    """The queue's rules, as its consumer holds them."""

    ack_wait_s: float = 30.0
    max_attempts: int = DEFAULT_MAX_ATTEMPTS

    @classmethod
    def from_consumer(cls, info: Mapping[str, Any]) -> Policy:
        """From the answer of JetStream's `CONSUMER.INFO`."""
        config: Mapping[str, Any] = info["config"]
        metadata: Mapping[str, str] = config.get("metadata") or {}
        attempts = metadata.get("shoal.max_attempts", "")
        return cls(
            ack_wait_s=config.get("ack_wait", 30_000_000_000) / 1e9,
            max_attempts=int(attempts) if attempts.isdigit() else DEFAULT_MAX_ATTEMPTS,
        )


Place = tuple[int, float]  # sequence in the stream, and when it was published there


@dataclass(slots=True, eq=False)
class Delivery:
    """A task as it was delivered; `reply` is the subject on which it is answered for."""

    task: Task
    reply: str
    sequence: int
    epoch: int = 0  # of the connection that brought it last
    started: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)  # `reply` is another than it was

    @property
    def place(self) -> Place:
        return self.sequence, self.task.published_at

    @classmethod
    def from_message(cls, message: Msg, settings: QueueSettings, policy: Policy) -> Delivery:
        """Raises nats' `NotJSMessageError` when `message` is not a delivery."""
        metadata = message.metadata
        headers = message.headers or {}
        sequence = metadata.sequence.stream
        task = Task(
            task_id(headers, settings.stream, sequence),
            message.data,
            queue=settings.queue,
            attempt=metadata.num_delivered,
            max_attempts=policy.max_attempts,
            published_at=metadata.timestamp.timestamp(),
            headers=headers,
        )
        return cls(task, message.reply, sequence)


class Answers:
    """Answers for deliveries over one link. `held` are those that still need one, and heartbeats until then.

    A broker that was killed may have forgotten that it delivered a task, and may say that it took an acknowledgement
    of what it does not know: it delivers the task again as if for the first time. So what is held, and what was
    finished lately, is known by its place in the stream, and not run again.
    """

    def __init__(self, link: Link, settings: QueueSettings, *, retry_delay_max_s: float) -> None:
        self._link = link
        self._settings = settings
        self._max_s = retry_delay_max_s
        self.alone = True  # as far as the broker knew when we came
        self.ack_wait_s = Policy().ack_wait_s
        self.held: dict[Place, Delivery] = {}
        self._finished: dict[Place, None] = {}  # in order of time

    def take(self, delivery: Delivery) -> bool:
        """Holds a new delivery. False when it is held already: from now on it is answered for by its new address."""
        delivery.epoch = self._link.epoch
        earlier = self.held.get(delivery.place)
        if earlier is not None:
            earlier.reply, earlier.epoch = delivery.reply, delivery.epoch
            earlier.moved.set()
            return False
        self.held[delivery.place] = delivery
        return True

    def is_finished(self, delivery: Delivery) -> bool:
        """Whether its task was done, or written to the dead letters, by this worker."""
        return delivery.place in self._finished

    async def is_owed(self, delivery: Delivery) -> bool:
        """Whether the task still is in the queue: False when another worker was done with it a moment ago.

        Asked only where that can be: of what is delivered again, and for `ack_wait` after connecting, as a broker that
        was killed may have forgotten to whom it delivered what. Where there are others, or were, they get a moment to
        answer for what they have done. Without an answer the task counts as owed.
        """
        if delivery.task.attempt == 1 and self._link.connected_s > self.ack_wait_s:
            return True
        if self._link.epoch > 1 or not self.alone:
            await asyncio.sleep(_SETTLE_S - self._link.connected_s)
        body = json.dumps({"seq": delivery.sequence}).encode()
        try:
            reply = await self._link.request(
                f"$JS.API.STREAM.MSG.GET.{self._settings.stream}", body, timeout_s=_OWED_TIMEOUT_S
            )
        except (TimeoutError, OSError, errors.Error):
            return True
        answer: Mapping[str, Any] = json.loads(reply.data)
        return answer.get("error", {}).get("err_code") != _NO_MESSAGE

    def release(self, delivery: Delivery) -> None:
        """Nothing more is to be said about it."""
        self.held.pop(delivery.place, None)

    async def done(self, delivery: Delivery) -> bool:
        """Acknowledges, and waits until the broker says that it has heard; False when it never did.

        Without that wait, an acknowledgement that is lost with the connection would have the task done again.
        """
        self._finished[delivery.place] = None
        if len(self._finished) > _FINISHED_KEPT:
            del self._finished[next(iter(self._finished))]
        wait_s = _ANSWER_WAIT_S
        for _ in range(_ANSWER_TRIES):
            await self._link.client()
            delivery.moved.clear()
            try:
                await self._link.request(delivery.reply, b"+ACK", timeout_s=wait_s)
            except (TimeoutError, OSError, errors.Error):  # also NoRespondersError: JetStream is not up yet
                wait_s = min(wait_s * 1.25, _ANSWER_WAIT_MAX_S)
            else:
                self.release(delivery)
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s / 4):
                    await delivery.moved.wait()  # a broker that forgot the delivery takes an answer to the next alone
        self.release(delivery)
        log.error("%s: done, but the broker does not take the acknowledgement; it may be done again", delivery.task)
        return False

    async def heartbeat(self) -> None:
        """Starts the `ack_wait` of everything held anew."""
        for delivery in tuple(self.held.values()):
            await self._link.send(delivery.reply, b"+WPI")

    async def hand_back(self, delivery: Delivery, delay_s: float = 0.0) -> None:
        """Has the task delivered again after `delay_s`. If this is lost, that happens after `ack_wait`."""
        self.release(delivery)  # first: a heartbeat after this would undo the delay
        delay = b" " + json.dumps({"delay": int(delay_s * 1e9)}).encode() if delay_s > 0 else b""
        await self._link.send(delivery.reply, b"-NAK" + delay)

    def can_go_back(self, delivery: Delivery) -> bool:
        """Once: the next delivery is the second attempt, though nothing was tried."""
        return delivery.task.attempt == 1 < delivery.task.max_attempts

    async def again(self, delivery: Delivery, delay_s: float) -> None:
        """Has the task delivered again after the delay, as another attempt."""
        await self.hand_back(delivery, delay_s)

    async def dead(self, delivery: Delivery, dead: Dead, error: BaseException | None = None) -> None:
        """Writes the dead letter, waits until it is safe, and only then acknowledges the task."""
        task = delivery.task
        log.error("%s: to the dead letters: %s", task, dead.reason, exc_info=error)
        try:
            room = (await self._link.client()).max_payload - len(task.data) - _HEADERS_BYTES
            headers = dead_letter_headers(
                task,
                dead.reason,
                error,
                key=dead_letter_key(self._settings.stream, delivery.sequence, task.published_at),
                agent=os.environ.get("SHOAL_AGENT", ""),
                room_bytes=room - sum(len(name) + len(value) + 4 for name, value in task.headers.items()),
            )
            await publish_confirmed(
                self._link, self._settings.dead_subject, task.data, headers, timeout_s=_DEAD_LETTER_TIMEOUT_S
            )
        except QueueError as refused:
            log.error("%s: the dead letter could not be written, the task stays in the queue: %s", task, refused)  # noqa: TRY400 - its text says all
            await self.hand_back(delivery, self._max_s)
            return
        await self.done(delivery)
