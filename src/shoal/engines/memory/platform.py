"""A platform of values: addresses that nobody listens on, the same for an agent as long as it lives."""

from __future__ import annotations

from shoal.core.broker import broker_users
from shoal.core.wiring import Wiring
from shoal.errors import EngineError
from shoal.spec.model import Fleet


class MemoryPlatform:
    """Hands out addresses. `fails` makes `ensure` raise EngineError; `ensured` counts its calls; `removed` says
    whether `remove` was called, and `data_removed` whether with data."""

    def __init__(self) -> None:
        self.fails: str | None = None
        self.ensured = 0
        self.removed = False
        self.data_removed = False
        self._ports: dict[str, int] = {}

    async def ensure(self, fleet: Fleet) -> Wiring:
        """The wiring of every agent that calls or has a queue."""
        if self.fails is not None:
            raise EngineError(self.fails)
        self.ensured += 1
        callers = [name for name, agent in fleet.agents.items() if agent.calls]
        for name in callers:
            self._ports.setdefault(name, 20000 + len(self._ports))
        users = broker_users(fleet)
        return Wiring(
            bind=fleet.local.bind,
            public_port=fleet.local.port or 8080,
            caller_ports=dict(self._ports),
            call_url={name: f"http://127.0.0.1:{self._ports[name]}" for name in callers},
            broker_url={name: f"nats://{name}@127.0.0.1:4222" for name in users},
            broker_admin_url="nats://127.0.0.1:4222" if users else None,
        )

    async def remove(self, *, data: bool) -> None:
        """Notes that it was called."""
        self.removed = True
        self.data_removed = self.data_removed or data
