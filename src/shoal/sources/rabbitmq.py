"""The queues of a fleet on RabbitMQ: made as declared, and how much there is to do."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from aiormq.abc import AbstractChannel

from shoal.core.rabbitmq import (
    RabbitMqAddress,
    dead_queue_name,
    exchange_name,
    queue_name,
    render_arguments,
    render_dead_arguments,
    vhost_of,
)
from shoal.core.signals import Reading
from shoal.errors import BrokerError
from shoal.sources.amqp import Amqp, Different
from shoal.sources.rabbitmq_management import ManagementApi
from shoal.spec.model import Queue

LISTED_EVERY_S = 1.0
SETTLES_S = 10.0  # the management API's figures: a queue tells its own every 5 s, and they are collected every 5 s


@dataclass(frozen=True, slots=True)
class QueueTotals:
    """One queue of the fleet, as the management API last knew it; `again` tasks wait for another attempt."""

    ready: int = 0
    unacknowledged: int = 0
    again: int = 0
    dead: int = 0

    @property
    def taken(self) -> int:
        """What is to be done and does not wait in the queue itself."""
        return self.unacknowledged + self.again


class RabbitMqQueues:
    """The queues of one fleet, and their depth. What is less than before is less only after `settles_s`."""

    def __init__(self, address: RabbitMqAddress, fleet: str, settles_s: float = SETTLES_S) -> None:
        self._amqp = Amqp(address.url, address.credentials)
        self._management = ManagementApi(address.management_url, address.credentials, vhost_of(address.url))
        self._fleet = fleet
        self._totals: Mapping[str, QueueTotals] = {}
        self._listed_at = 0.0
        self._settles_s = settles_s
        self._sums: dict[str, deque[tuple[float, int]]] = {}  # of the last seconds, with when

    async def ensure(self, queues: Mapping[str, Queue]) -> None:
        """Makes everything that `queues` (by name) need; idempotent. A queue that is no longer there keeps its tasks.

        Raises BrokerError when the broker is away or refuses, or has a queue of that name that is made in another way.
        """
        if not queues:
            return
        exchange = exchange_name(self._fleet)
        async with self._amqp.channel() as channel:
            await channel.exchange_declare(exchange, exchange_type="direct", durable=True)
        for name in queues:
            try:
                async with self._amqp.channel() as channel:
                    await self._declare(channel, name)
            except Different as different:
                raise BrokerError(
                    f"queue {name!r}: the broker has a queue {queue_name(self._fleet, name)} already, made in another "
                    f"way ({different}); remove that one, or rename the queue or the fleet"
                ) from None
        await self._list()  # says what is missing for that while somebody looks

    async def read(self) -> Mapping[str, Reading]:
        """Tasks that wait, are worked on or wait for another attempt, by queue, of every queue that this fleet has on
        the broker. What waits is known at once; what is worked on some seconds later, so what leaves the queue counts
        until it must be known: a worker that has just taken the last task is not taken for idle."""
        if time.monotonic() - self._listed_at > LISTED_EVERY_S:
            await self._list()
        waiting = await read_waiting(self._amqp, [queue_name(self._fleet, name) for name in self._totals])
        at, now = time.time(), time.monotonic()
        return {
            name: Reading(self._largest(name, waiting[queue_name(self._fleet, name)] + each.taken, now), at)
            for name, each in self._totals.items()
        }

    def _largest(self, name: str, count: int, now: float) -> float:
        sums = self._sums.setdefault(name, deque())
        sums.append((now, count))
        while sums[0][0] < now - self._settles_s:
            sums.popleft()
        return float(max(count for _, count in sums))

    async def remove(self) -> None:
        """Deletes every queue that the fleet has on the broker, with all that is in it, and its exchange."""
        names = await self._management.queues(f"{exchange_name(self._fleet)}.")
        async with self._amqp.channel() as channel:
            for name in names:
                await channel.queue_delete(name)
            await channel.exchange_delete(exchange_name(self._fleet))

    async def close(self) -> None:
        """Closes the connections."""
        await self._amqp.close()
        await self._management.close()

    async def _declare(self, channel: AbstractChannel, name: str) -> None:
        exchange = exchange_name(self._fleet)
        for each, arguments in (
            (dead_queue_name(self._fleet, name), render_dead_arguments()),
            (queue_name(self._fleet, name), render_arguments(self._fleet, name)),
        ):
            await channel.queue_declare(each, durable=True, arguments=arguments)
            await channel.queue_bind(each, exchange, each)

    async def _list(self) -> None:
        self._totals = await list_totals(self._management, self._fleet)
        self._listed_at = time.monotonic()


async def list_totals(management: ManagementApi, fleet: str) -> dict[str, QueueTotals]:
    """Every queue that the fleet has on the broker, by name."""
    prefix = f"{exchange_name(fleet)}."
    sums: dict[str, dict[str, int]] = {}
    for full, (ready, unacknowledged) in (await management.queues(prefix)).items():
        name, _, part = full.removeprefix(prefix).partition(".")
        counts = sums.setdefault(name, {})
        if not part:
            counts |= {"ready": ready, "unacknowledged": unacknowledged}
        elif part == "dead":
            counts["dead"] = ready + unacknowledged
        else:
            counts["again"] = counts.get("again", 0) + ready + unacknowledged
    return {name: QueueTotals(**counts) for name, counts in sums.items() if "ready" in counts}


async def read_waiting(amqp: Amqp, names: list[str]) -> dict[str, int]:
    """How many messages wait in each of these queues now."""
    async with amqp.channel() as channel:
        waiting: dict[str, int] = {}
        for name in names:
            answer = await channel.queue_declare(name, passive=True)
            waiting[name] = answer.message_count or 0
        return waiting
