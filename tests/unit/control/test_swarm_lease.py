"""Never two who may act: on drawn delays, lost answers and pauses, and in the plain cases."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.control.lease import TERM_S, Lease
from shoal.control.swarm_lease import LEASE, SwarmLease
from shoal.errors import Conflict, EngineUnavailable
from tests.fake_docker import FakeDocker

STATE = {"Name": "f_shoal-state", "Labels": {}}


class Time:
    """Virtual: whoever sleeps is woken in the order of his instants."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def read(self) -> float:
        return self.now

    async def sleep(self, delay_s: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + delay_s, next(self._order), woken))
        await woken

    async def run_until(self, end: float, at_each: Callable[[], None]) -> None:
        while True:
            for _ in range(20):  # whoever was woken goes as far as he can
                await asyncio.sleep(0)
            at_each()
            if not self._sleepers or self._sleepers[0][0] > end:
                return
            at, _, woken = heapq.heappop(self._sleepers)
            self.now = max(self.now, at)
            if not woken.done():
                woken.set_result(None)


async def nobody_knows(_: str) -> bool:
    return False


def lease(swarm: FakeDocker, time: Time, holder: str, gone: Callable[[str], Awaitable[bool]] = nobody_knows) -> Lease:
    return Lease(SwarmLease(swarm, "f"), holder, gone=gone, now=time.read, sleep=time.sleep)


async def test_who_comes_first_acts() -> None:
    """The second waits a whole term after the last sign of the first."""
    swarm, time = FakeDocker(), Time()
    await swarm.create_service(STATE)
    first, second = lease(swarm, time, "a"), lease(swarm, time, "b")
    await first.acquire()
    assert first.held
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(second.acquire())
        await time.run_until(TERM_S - 0.1, lambda: None)
        assert not second.held and first.held
        await time.run_until(TERM_S + 2, lambda: None)
        assert second.held and not first.held and waiting.done()
    with pytest.raises(Conflict, match="another one may act in its place"):
        first.require()


async def test_who_ended_is_not_waited_for() -> None:
    """Where the Swarm itself says that the holder's task has ended, or the holder said so."""
    swarm, time = FakeDocker(), Time()
    await swarm.create_service(STATE)
    first = lease(swarm, time, "a")
    await first.acquire()

    async def gone(holder: str) -> bool:
        return holder == "a"

    second = lease(swarm, time, "b", gone)
    await second.acquire()
    assert second.held and time.now == 0
    await second.release()
    assert LEASE not in swarm.kept["services"]["f_shoal-state"]["Spec"]["Labels"] and not second.held
    third = lease(swarm, time, "c")
    await third.acquire()
    assert third.held and time.now == 0


async def test_who_lost_it_is_told() -> None:
    """One that comes back from a long pause finds another one."""
    swarm, time = FakeDocker(), Time()
    await swarm.create_service(STATE)
    first, second = lease(swarm, time, "a"), lease(swarm, time, "b")
    await first.acquire()
    swarm.away = EngineUnavailable("cut off")
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.keep())
            await time.run_until(TERM_S * 2, lambda: None)
            assert not first.held
            swarm.away = None
            swarm.kept["services"]["f_shoal-state"]["Spec"]["Labels"][LEASE] = "b 9"
            await time.run_until(TERM_S * 3, lambda: None)
    assert raised.group_contains(Conflict, match="another controller acts now: b")
    assert not second.held


class Slow:
    """A Swarm that answers each of one controller's calls late, or loses what it asked or answered."""

    def __init__(self, swarm: FakeDocker, time: Time, draw: Callable[[], tuple[float, float, bool, bool]]) -> None:
        self._swarm, self._time, self._draw = swarm, time, draw

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def call(*arguments: object) -> object:
            before_s, after_s, lost, answer_lost = self._draw()
            await self._time.sleep(before_s)
            if lost:
                raise EngineUnavailable("lost")
            answer = await getattr(self._swarm, name)(*arguments)
            await self._time.sleep(after_s)
            if answer_lost:
                raise EngineUnavailable("answered, and lost")
            return answer

        return call


DELAYS = st.tuples(
    st.sampled_from([0.0, 0.1, 1.0, 5.0, 20.0]), st.sampled_from([0.0, 0.1, 3.0, 20.0]), st.booleans(), st.booleans()
)


@settings(max_examples=60, deadline=None)
@given(st.lists(DELAYS, min_size=1, max_size=60), st.integers(2, 4))
async def test_never_two(delays: list[tuple[float, float, bool, bool]], count: int) -> None:
    """Whatever is late or lost, for each of several controllers that all want to act."""
    swarm, time = FakeDocker(), Time()
    await swarm.create_service(STATE)
    drawn = itertools.cycle(delays)
    leases = [
        Lease(
            SwarmLease(Slow(swarm, time, lambda: next(drawn)), "f"),  # type: ignore[arg-type]
            f"c{n}",
            gone=nobody_knows,
            now=time.read,
            sleep=time.sleep,
        )
        for n in range(count)
    ]
    most = 0

    def count_holders() -> None:
        nonlocal most
        most = max(most, sum(each.held for each in leases))

    async def live(each: Lease) -> None:
        while True:
            try:
                await each.acquire()
                await each.keep()
            except (EngineUnavailable, Conflict):
                await time.sleep(0.3)

    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(live(each)) for each in leases]
        await time.run_until(300.0, count_holders)
        for each in lives:
            each.cancel()
    assert most <= 1
