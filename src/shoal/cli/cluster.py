"""A fleet in a cluster, seen from the command line: what is the same on each of them, whoever places its replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from shoal.cli.output import say
from shoal.errors import ControllerUnavailable, no_such_agent

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.api.views import LogView, StatusView
    from shoal.cli.place import Place
    from shoal.control.store import Store
    from shoal.engines.protocol import Inspector
    from shoal.spec.model import Agent

START_TIMEOUT_S = 120.0  # an image may have to be pulled
_REFUSED_S = 15.0  # what a cluster can't do at once, it may a moment later
_POLL_S = 0.3


async def tell(client: Client, fleet: str, why_silent: Callable[[], Awaitable[tuple[str, bool]]]) -> None:
    """Tells the controller that there is something to do, and waits for one that is on its way. `why_silent` gives what
    the cluster says of it, and whether it refuses to run it. Raises ControllerUnavailable with that."""
    began = time.monotonic()
    told = False
    while True:
        try:
            await client.apply()
        except ControllerUnavailable as error:
            why, refused = await why_silent()
            silent_s = time.monotonic() - began
            if silent_s > START_TIMEOUT_S or (refused and silent_s > _REFUSED_S):
                raise ControllerUnavailable(f"{error}\n{why}") from error
        else:
            return
        if not told:
            say(f"Waiting for the controller of {fleet} ...")
            told = True
        await asyncio.sleep(_POLL_S)


async def read_logs(
    engine: Inspector, store: Store, agents: Sequence[str], since: float | None, tail: int | None
) -> AsyncGenerator[LogView, None]:
    """What these agents, or all, wrote until now. Raises NotFound for one that the fleet does not have."""
    from shoal.api.views import LogView

    stored = await store.read_fleet()
    known: Mapping[str, Agent] = stored.fleet.agents if stored is not None and stored.fleet is not None else {}
    for agent in agents:
        if agent not in known:
            raise no_such_agent(agent, known)
    async with aclosing(engine.logs(*(agents or known), since=since, tail=tail)) as lines:
        async for line in lines:
            yield LogView(line.replica, line.agent, line.text, line.stream, line.at)


class Without:
    """Ends a fleet whose controller does not answer: the cluster ends its replicas, each in its own time."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def watch(self) -> AsyncGenerator[StatusView, None]:
        """There is nothing to be seen."""
        for view in ():
            yield view

    async def down(self, *, volumes: bool = False) -> None:
        async with self._place.store(make=True) as store:
            stored = await store.read_fleet()
            if stored is not None and stored.fleet is not None:
                await store.write_fleet(
                    None,
                    directory=stored.directory,
                    by="down",
                    at=time.time(),
                    expected_generation=stored.generation,
                )
        await self._place.tidy(data=volumes)
        if not volumes:  # else the state is gone
            from shoal.control.store import keep_at_end

            async with self._place.store() as store:
                await keep_at_end(store, pins=True)
