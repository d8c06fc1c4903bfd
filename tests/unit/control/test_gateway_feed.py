"""The barrier: whom it waits for, and for how long. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shoal.control.agent_state import AgentState, Event
from shoal.control.gateway_feed import BARRIER_S, COME_S, GATHER_S, GatewayFeed
from shoal.core.observed import AgentObserved
from shoal.core.routing import AgentRoute, HealthCheck, Snapshot
from shoal.proxy.memory import MemoryGateways
from tests.simulation.virtual_time import run_virtually


class Feed:
    """A feed with one agent, of which one replica has to leave."""

    def __init__(self, *names: str) -> None:
        self.gateways = MemoryGateways(*names, agrees=False)
        self.state = AgentState("web", None, AgentObserved("web"), leaving=frozenset({"web-1"}))
        self.noted: list[Event] = []
        self.left_at: float | None = None
        self.feed = GatewayFeed(
            self.gateways, states={"web": self.state}, clock=lambda: 0.0, note=self.noted.append, wake=self._woken
        )

    def _woken(self, _agent: str) -> None:
        self.left_at = asyncio.get_running_loop().time()


@asynccontextmanager
async def leaving(bed: Feed) -> AsyncGenerator[None]:
    """Pushes, so that the barrier begins; ends when it is over."""
    async with asyncio.TaskGroup() as tasks:
        bed.feed.push(Snapshot("f", "127.0.0.1", 8080), tasks)
        yield


def test_a_new_controller_gives_gateways_time_to_call() -> None:
    """Where replicas served before it, one gateway's acknowledgement is not that of all: others may not have called
    yet."""

    async def run() -> None:
        bed = Feed("g1")
        bed.feed.expect_gateways()
        async with leaving(bed):
            bed.gateways.acknowledge("g1")
            await asyncio.sleep(GATHER_S / 2)
            bed.gateways.connect("g2")
            await asyncio.sleep(GATHER_S)
            assert bed.state.left == frozenset()
            bed.gateways.acknowledge("g2")
        assert bed.state.left == {"web-1"} and not bed.noted

    run_virtually(run())


def test_routed_is_once_all_that_were_started_are_there_and_agree() -> None:
    """Not when those that happen to be there already do."""

    async def run() -> None:
        bed = Feed("n1")
        bed.feed.await_arrival(("n1", "n2"))
        bed.feed.push(Snapshot("f", "127.0.0.1", 8080), None)
        bed.gateways.acknowledge("n1")
        await asyncio.sleep(COME_S / 2)
        assert not bed.feed.routed
        bed.gateways.connect("n2")
        assert not bed.feed.routed
        bed.gateways.acknowledge("n2")
        assert bed.feed.routed and bed.feed.missing() is None
        bed.gateways.disconnect("n2")
        assert bed.feed.routed  # it had come: what becomes of it is the engine's affair

    run_virtually(run())


def test_who_never_comes_is_told_of_and_waited_for_no_longer() -> None:
    """Its port may be taken on its node. Nor is it with the next change; when it comes, all is well."""

    async def run() -> None:
        bed = Feed("n1")
        bed.feed.await_arrival(("n1", "n2", "n3"))
        bed.feed.push(Snapshot("f", "127.0.0.1", 8080), None)
        bed.gateways.acknowledge("n1")
        assert not bed.feed.routed and bed.feed.missing() is None
        await asyncio.sleep(COME_S + 1)
        bed.feed.await_arrival(("n1", "n2", "n3"))
        assert bed.feed.routed
        assert bed.feed.missing() == "no gateway on n2, n3, 30 s after its start: requests there are refused"
        bed.gateways.connect("n2")
        bed.gateways.connect("n3")
        assert bed.feed.missing() is None

    run_virtually(run())


def test_a_controller_that_began_with_nothing_waits_for_those_it_knows() -> None:
    """Without anything that ran before, there is no gateway but those that called."""

    async def run() -> None:
        bed = Feed("g1")
        async with leaving(bed):
            bed.gateways.acknowledge("g1")
        assert bed.state.left == {"web-1"} and bed.left_at == 0.0

    run_virtually(run())


def test_the_barrier_ends_without_anybody() -> None:
    """A gateway that never answers holds nothing up for longer than the barrier, and is named."""

    async def run() -> None:
        bed = Feed("g1")
        async with leaving(bed):
            pass
        assert bed.left_at == BARRIER_S and "g1" in bed.noted[0].message

    run_virtually(run())


def test_who_came_back_in_between_has_to_be_agreed_upon_anew() -> None:
    """A late acknowledgement of the version in which it first left is none for the one in which it leaves again: the
    gateway may use the version between them, in which it serves."""

    async def run() -> None:
        bed = Feed("g1")
        async with asyncio.TaskGroup() as tasks:
            for port, out in ((8080, {"web-1"}), (8081, set[str]()), (8082, {"web-1"})):
                bed.state.leaving = frozenset(out)
                bed.feed.push(Snapshot("f", "127.0.0.1", port), tasks)
                await asyncio.sleep(0)
            bed.gateways.acknowledge("g1", 2)
            await asyncio.sleep(BARRIER_S / 2)
            assert bed.state.left == frozenset()
            bed.gateways.acknowledge("g1", 3)
        assert bed.state.left == {"web-1"} and not bed.noted

    run_virtually(run())


def test_a_hold_that_was_gone_in_between_has_to_be_agreed_upon_anew() -> None:
    """The same of a hold, without which the last replica must not go."""

    async def run() -> None:
        bed = Feed("g1")
        bed.state.leaving = frozenset()
        async with asyncio.TaskGroup() as tasks:
            for port, hold in ((8080, True), (8081, False), (8082, True)):
                bed.state.route = AgentRoute("web", "http", HealthCheck(None, 1.0, 1.0, 1), hold=hold)
                bed.feed.push(Snapshot("f", "127.0.0.1", port), tasks)
                await asyncio.sleep(0)
            bed.gateways.acknowledge("g1", 2)
            await asyncio.sleep(BARRIER_S / 2)
            assert not bed.state.hold_acknowledged
            bed.gateways.acknowledge("g1", 3)
        assert bed.state.hold_acknowledged

    run_virtually(run())
