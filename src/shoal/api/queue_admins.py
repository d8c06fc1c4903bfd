"""What people do with queues, whichever broker holds them: each question goes to the one that has the queue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from shoal.control.controller import Controller
from shoal.core.queued import QueueCounts, QueuedTask
from shoal.core.rabbitmq import RabbitMqAddress, rabbitmq_queues
from shoal.errors import no_such_queue
from shoal.sources.jetstream_admin import JetStreamAdmin
from shoal.sources.rabbitmq_admin import RabbitMqAdmin


class QueueAdmin(Protocol):
    """One broker's. Every method raises BrokerError when it is away, NotFound for a queue that it does not have."""

    async def list(self) -> tuple[QueueCounts, ...]: ...

    async def peek(self, queue: str, *, dead: bool = False, limit: int = 100) -> tuple[QueuedTask, ...]: ...

    async def purge(self, queue: str, *, dead: bool = False) -> int: ...

    async def redrive(self, queue: str, ids: Collection[str] | None = None) -> int: ...

    async def close(self) -> None: ...


class QueueAdmins:
    """A connection to each broker of the controller's fleet, opened with the first question and kept."""

    def __init__(self, controller: Controller, fleet: str, mask: Callable[[str], str]) -> None:
        self._controller, self._fleet, self._mask = controller, fleet, mask
        self._open: dict[object, QueueAdmin] = {}  # by address

    async def list(self) -> Mapping[str, tuple[QueueCounts, ...]]:
        """Every queue of the fleet, by broker."""
        found: dict[str, tuple[QueueCounts, ...]] = {}
        for name, broker in self._controller.queues.outside.items():
            found[name] = await self._of(broker).list()
        embedded = self._embedded()
        if embedded is not None:
            outside = {counts.name for queues in found.values() for counts in queues}
            found[""] = tuple(counts for counts in await embedded.list() if counts.name not in outside)
        return found

    def of(self, queue: str) -> QueueAdmin:
        """The broker of a queue; of one that the fleet has no more, that which Shoal runs. Raises NotFound."""
        stored = self._controller.stored
        fleet = stored.fleet if stored is not None else None
        there = rabbitmq_queues(fleet).get(queue) if fleet is not None else None
        if there is not None and there.broker in self._controller.queues.outside:
            return self._of(self._controller.queues.outside[there.broker])
        embedded = self._embedded()
        if embedded is None:
            raise no_such_queue(queue, fleet.queues if fleet is not None else ())
        return embedded

    async def aclose(self) -> None:
        """Closes all connections."""
        for admin in self._open.values():
            await admin.close()
        self._open.clear()

    def _embedded(self) -> QueueAdmin | None:
        url = self._controller.wired.wiring.broker_admin_url if self._controller.wired is not None else None
        if url is None:
            return None
        if url not in self._open:
            self._open[url] = JetStreamAdmin(url, self._fleet, self._mask)
        return self._open[url]

    def _of(self, broker: RabbitMqAddress) -> QueueAdmin:
        if broker not in self._open:
            self._open[broker] = RabbitMqAdmin(broker, self._fleet, self._mask)
        return self._open[broker]
