"""Prepares what was stored, beside the passes: its gateways and brokers may take their time, and what is in force goes
on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shoal.control.agent_state import AgentState
from shoal.control.gateway_feed import GatewayFeed
from shoal.control.parts import Parts
from shoal.control.queue_brokers import QueueBrokers
from shoal.control.store import StoredFleet
from shoal.core.wiring import Wiring
from shoal.spec.model import Fleet

WAIT_S = 0.5  # that a pass waits for it


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stored fleet that can be taken up; `None` where nothing was ever stored, or it is to end."""

    stored: StoredFleet | None
    fleet: Fleet | None = None
    wiring: Wiring | None = None


class Loading:
    """The load that is under way; `wake` is called when it has ended. `wished` is the fleet as it was last read."""

    def __init__(
        self,
        parts: Parts,
        states: Mapping[str, AgentState],
        queues: QueueBrokers,
        feed: GatewayFeed,
        wake: Callable[[], None],
    ) -> None:
        self._parts, self._states, self._queues, self._feed, self._wake = parts, states, queues, feed, wake
        self._task: asyncio.Task[Prepared | Exception] | None = None
        self.wished: StoredFleet | None = None

    @property
    def busy(self) -> bool:
        """Whether there is one that nobody took up yet."""
        return self._task is not None

    async def begin(self, tasks: asyncio.TaskGroup, *, queues_first: bool) -> None:
        """Begins one. Returns when it has ended, or a moment has passed. Without `queues_first` the fleet is ready
        though a broker does not answer."""
        self._task = tasks.create_task(self._load(queues_first))
        await asyncio.wait((self._task,), timeout=WAIT_S)

    def take_ended(self) -> Prepared | None:
        """What is ready since the last call. Raises what kept it from that."""
        if self._task is None or not self._task.done():
            return None
        task, self._task = self._task, None
        if isinstance(loaded := task.result(), Exception):
            raise loaded
        return loaded

    async def _load(self, queues_first: bool) -> Prepared | Exception:
        try:
            return await self._prepare(queues_first)
        except Exception as error:  # noqa: BLE001 - raised where it is taken up
            return error
        finally:
            self._wake()

    async def _prepare(self, queues_first: bool) -> Prepared:
        stored = self.wished = await self._parts.store.read_fleet()
        if stored is None or stored.fleet is None:
            return Prepared(stored)
        self._parts.require_right()
        self._parts.take_fleet(stored)
        wiring = await self._parts.platform.ensure(stored.fleet)
        self._feed.await_arrival(wiring.gateways)
        digests = {name: record.digest for name, record in stored.secrets.items()}
        await self._queues.take(stored.fleet, wiring.broker_admin_url, digests, wait=queues_first)
        await self._learn_calls()
        return Prepared(stored, stored.fleet, wiring)

    async def _learn_calls(self) -> None:
        """Whom those may call that are of an older revision and were started before this controller."""
        if any(revision not in state.calls for state in self._states.values() for revision in state.running):
            for name, stored in (await self._parts.store.read_history()).revisions.items():
                if name in self._states:
                    self._states[name].learn_calls({each.revision: each.spec.calls for each in stored})
