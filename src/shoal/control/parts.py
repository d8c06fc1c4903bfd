"""What a controller is made of: the ports that it ties together, for one engine or another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from shoal.control.event_file import EventHistory
from shoal.control.store import Store, StoredFleet
from shoal.core.rabbitmq import RabbitMqAddress
from shoal.core.signals import Reading
from shoal.core.template import SecretUse
from shoal.engines.protocol import Engine, Inspector, Platform
from shoal.errors import BrokerError, EngineUnavailable, NotFound
from shoal.proxy.protocol import Gateways
from shoal.spec.model import Queue


class QueueBroker(Protocol):
    """What control needs of a broker: queues made as declared, their depths, and an end to them."""

    async def ensure(self, queues: Mapping[str, Queue]) -> None: ...

    async def read(self) -> Mapping[str, Reading]: ...

    async def remove(self) -> None: ...

    async def close(self) -> None: ...


def _alone() -> None:
    return


def _no_secrets(use: SecretUse) -> bytes:
    raise NotFound(f"the secret {use.name} has no content here")


async def _no_contents(kept: frozenset[str]) -> None:
    return


def _no_outside(address: RabbitMqAddress, fleet: str) -> QueueBroker:
    raise BrokerError(f"the broker {address.url} can't be used here")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a controller is made of. `clock` gives epoch seconds; `open_queues` takes the broker's admin URL and the
    fleet's name, `open_outside` where another broker is; `read_secret` gives what one holds; `prune_secrets` drops the
    contents that none of the given HMACs names; `take_fleet` lets an engine that has settings in the file read them,
    before anything is done for a new generation; `fleet` is its name, for where none can be taken up; `events` is where
    events are kept; `require_right` raises EngineUnavailable while another controller may act in this one's place."""

    engine: Engine
    inspector: Inspector
    platform: Platform
    gateways: Gateways
    store: Store
    open_queues: Callable[[str, str], Awaitable[QueueBroker]]
    clock: Callable[[], float]
    prune_secrets: Callable[[frozenset[str]], Awaitable[None]] = _no_contents
    take_fleet: Callable[[StoredFleet], None] = lambda stored: None
    fleet: str = ""
    open_outside: Callable[[RabbitMqAddress, str], QueueBroker] = _no_outside
    read_secret: Callable[[SecretUse], bytes] = _no_secrets
    events: EventHistory = field(default_factory=EventHistory)
    require_right: Callable[[], None] = _alone

    @property
    def has_right(self) -> bool:
        """Whether no other controller may act."""
        try:
            self.require_right()
        except EngineUnavailable:
            return False
        return True
