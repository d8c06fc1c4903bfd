"""What a controller is made of: the ports that it ties together, for one engine or another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from shoal.control.event_file import EventHistory
from shoal.control.store import Store, StoredFleet
from shoal.core.signals import Reading
from shoal.engines.protocol import Engine, Inspector, Platform
from shoal.proxy.protocol import Gateways
from shoal.spec.model import Queue


class QueueBroker(Protocol):
    """What control needs of the brokers: queues made as declared, and their depths."""

    async def ensure(self, queues: Mapping[str, Queue]) -> None: ...

    async def read(self) -> Mapping[str, Reading]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a controller is made of. `clock` gives epoch seconds; `open_queues` takes the broker's admin URL and the
    fleet's name; `prune_secrets` drops the contents that none of the given HMACs names; `take_fleet` lets an engine
    that has settings in the file read them, before anything is done for a new generation; `fleet` is its name, for
    where none can be taken up; `events` is where events are kept."""

    engine: Engine
    inspector: Inspector
    platform: Platform
    gateways: Gateways
    store: Store
    open_queues: Callable[[str, str], Awaitable[QueueBroker]]
    clock: Callable[[], float]
    prune_secrets: Callable[[frozenset[str]], None] = lambda kept: None
    take_fleet: Callable[[StoredFleet], None] = lambda stored: None
    fleet: str = ""
    events: EventHistory = field(default_factory=EventHistory)
