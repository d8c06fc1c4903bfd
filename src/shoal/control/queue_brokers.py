"""The brokers of a fleet: each holds its own queues, and one that is away hides nothing of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shoal.control.parts import Parts, QueueBroker
from shoal.core.rabbitmq import DEFAULT_CREDENTIALS, RabbitMqAddress, management_url, rabbitmq_queues
from shoal.core.signals import Reading
from shoal.core.template import SecretUse
from shoal.errors import BrokerError
from shoal.spec.model import Broker, Fleet

EMBEDDED = ""  # under this name is the broker that Shoal runs; no other can have it


@dataclass(frozen=True, slots=True)
class Depths:
    """The readings by queue, and why some are missing."""

    readings: Mapping[str, Reading] = field(default_factory=dict[str, Reading])
    missing: BrokerError | None = None


class QueueBrokers:
    """Connections to the brokers of one fleet. `outside` are the addresses of those that Shoal does not run."""

    def __init__(self, parts: Parts) -> None:
        self.outside: Mapping[str, RabbitMqAddress] = {}
        self._parts = parts
        self._open: dict[str, tuple[object, QueueBroker]] = {}  # with the address that each was opened for
        self._wanted: tuple[Fleet, Mapping[str, object]] | None = None  # and their addresses
        self._made_for: Fleet | None = None
        self._lock = asyncio.Lock()

    @property
    def behind(self) -> bool:
        """Whether not all queues are as the fleet that was last taken declares them; see `catch_up`."""
        return self._wanted is not None and self._wanted[0] is not self._made_for

    async def take(self, fleet: Fleet, admin_url: str | None, digests: Mapping[str, str], *, wait: bool = True) -> None:
        """Connects to the brokers that the fleet names, leaves the others, and makes the queues as declared; without
        `wait` that is left to `catch_up`. `digests` are the HMACs of secrets by name. Raises BrokerError."""
        used = {queue.broker for queue in rabbitmq_queues(fleet).values()}
        self.outside = {
            name: self._address(name, broker, digests)
            for name, broker in fleet.brokers.items()
            if name in used and broker.url is not None
        }
        wanted: dict[str, object] = dict(self.outside)
        if admin_url is not None:
            wanted[EMBEDDED] = admin_url
        self._wanted = (fleet, wanted)
        if wait or not (wanted or self._open):
            await self.catch_up()

    async def catch_up(self) -> None:
        """Does what is left to do for the fleet that was last taken. Raises BrokerError."""
        async with self._lock:
            if self._wanted is not None and self.behind:
                fleet, wanted = self._wanted
                await self._make(fleet, wanted)
                self._made_for = fleet

    async def _make(self, fleet: Fleet, wanted: Mapping[str, object]) -> None:
        on_rabbitmq = rabbitmq_queues(fleet)
        for name in [name for name, (address, _) in self._open.items() if wanted.get(name) != address]:
            await self._open.pop(name)[1].close()
        failures: list[BrokerError] = []
        for name, address in wanted.items():
            own = {
                each: queue
                for each, queue in fleet.queues.items()
                if (on_rabbitmq[each].broker if each in on_rabbitmq else EMBEDDED) == name
            }
            try:
                if name not in self._open:
                    self._open[name] = (address, await self._connect(address, fleet.fleet))
                await self._open[name][1].ensure(own)
            except BrokerError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def read(self) -> Depths:
        """The depths of all queues, as far as their brokers answer."""
        readings: dict[str, Reading] = {}
        missing = None
        for _, broker in tuple(self._open.values()):
            try:
                readings |= await broker.read()
            except BrokerError as error:
                missing = error
        return Depths(readings, missing)

    async def close(self) -> None:
        """Closes all connections."""
        for _, broker in self._open.values():
            await broker.close()
        self._open.clear()

    async def remove_outside(self, note: Callable[[str], None]) -> None:
        """Deletes the fleet's queues, with what is in them, from the brokers that Shoal does not run; those of its own
        go with the broker. What can't be deleted is told."""
        for name, (_, broker) in self._open.items():
            if name != EMBEDDED:
                try:
                    await broker.remove()
                except BrokerError as error:
                    note(f"the queues on the broker {name} could not be deleted: {error}")

    async def _connect(self, address: object, fleet: str) -> QueueBroker:
        if isinstance(address, RabbitMqAddress):
            return self._parts.open_outside(address, fleet)
        return await self._parts.open_queues(str(address), fleet)

    def _address(self, name: str, broker: Broker, digests: Mapping[str, str]) -> RabbitMqAddress:
        credentials = DEFAULT_CREDENTIALS
        if broker.secret is not None:
            content = self._parts.read_secret(SecretUse(broker.secret, False, digests.get(broker.secret, "")))
            credentials = content.decode(errors="replace").strip()
            if ":" not in credentials:
                raise BrokerError(
                    f"brokers.{name}.secret: {broker.secret} does not hold user:password; give it by `shoal secret set "
                    f"{broker.secret}`, or from its source by `shoal up`"
                )
        return RabbitMqAddress(broker.url or "", management_url(broker), credentials)
