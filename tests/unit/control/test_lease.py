"""Never two who may act: on drawn delays, lost answers and pauses, and in the plain cases, on every engine."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.control import kubernetes_lease
from shoal.control.kubernetes_lease import KubernetesLease
from shoal.control.lease import TERM_S, Lease, LeaseKeeper
from shoal.control.swarm_lease import LEASE, SwarmLease
from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api import kinds as kubernetes_kinds
from shoal.errors import Conflict, EngineUnavailable
from tests.fake_docker import FakeDocker
from tests.fake_kubernetes import FakeKubernetes


class World(Protocol):
    """An engine of values on which nobody holds the right yet."""

    @property
    def api(self) -> FakeDocker | FakeKubernetes: ...

    def keeper(self, api: Any) -> LeaseKeeper: ...

    def touch(self) -> None:
        """Somebody else writes where the right stands."""
        ...


class OnSwarm:
    def __init__(self) -> None:
        self.api = FakeDocker()
        spec = {"Name": "f_shoal-state", "Labels": {"shoal.fleet": "f"}}
        self.api.kept["services"]["f_shoal-state"] = {"ID": "id", "Version": {"Index": 0}, "Spec": spec}

    def keeper(self, api: Any) -> LeaseKeeper:
        return SwarmLease(api, "f")

    def touch(self) -> None:
        self.api.kept["services"]["f_shoal-state"]["Version"]["Index"] += 1000


class OnKubernetes:
    def __init__(self) -> None:
        self.api = FakeKubernetes()

    def keeper(self, api: Any) -> LeaseKeeper:
        return KubernetesLease(api, "f", clock=lambda: 1767225600.5)

    def touch(self) -> None:
        self.api.of(kubernetes_kinds.LEASE)["shoal-controller"]["metadata"]["resourceVersion"] += "000"


WORLDS = pytest.mark.parametrize("world_of", [OnSwarm, OnKubernetes], ids=["swarm", "kubernetes"])


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


def lease(world: World, time: Time, holder: str, gone: Callable[[str], Awaitable[bool]] = nobody_knows) -> Lease:
    return Lease(world.keeper(world.api), holder, gone=gone, now=time.read, sleep=time.sleep)


@WORLDS
async def test_who_comes_first_acts(world_of: Callable[[], World]) -> None:
    """The second waits a whole term after the last sign of the first."""
    world, time = world_of(), Time()
    first, second = lease(world, time, "a"), lease(world, time, "b")
    await first.acquire()
    assert first.held
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(second.acquire())
        await time.run_until(TERM_S - 0.1, lambda: None)
        assert not second.held and first.held
        await time.run_until(TERM_S + 2, lambda: None)
        assert second.held and not first.held and waiting.done()
    with pytest.raises(EngineUnavailable, match="another one may act in its place"):
        first.require()


@WORLDS
async def test_who_finds_another_in_its_place_stops_at_once(world_of: Callable[[], World]) -> None:
    """Though its term is not over: somebody gave the right to another one by hand."""
    world, time = world_of(), Time()
    first, keeper = lease(world, time, "a"), world.keeper(world.api)
    await first.acquire()
    await keeper.write(await keeper.read(), "somebody")
    assert first.held
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(_ends_in_conflict(first))
        await time.run_until(TERM_S / 2, lambda: None)
        assert keeping.done() and not first.held


async def _ends_in_conflict(lease: Lease) -> None:
    with pytest.raises(Conflict, match="another controller acts now: somebody"):
        await lease.keep()


@WORLDS
async def test_who_renews_keeps_it(world_of: Callable[[], World]) -> None:
    """However long another one waits."""
    world, time = world_of(), Time()
    first, second = lease(world, time, "a"), lease(world, time, "b")
    await first.acquire()
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(first.keep()), tasks.create_task(second.acquire())]

        def look() -> None:
            assert first.held and not second.held

        await time.run_until(TERM_S * 10, look)
        for each in beside:
            each.cancel()


@WORLDS
async def test_who_ended_is_not_waited_for(world_of: Callable[[], World]) -> None:
    """Where the engine itself says that the holder has ended, or the holder said so."""
    world, time = world_of(), Time()
    first = lease(world, time, "a")
    await first.acquire()

    async def gone(holder: str) -> bool:
        return holder == "a"

    second = lease(world, time, "b", gone)
    await second.acquire()
    assert second.held and time.now == 0
    await second.release()
    assert (await world.keeper(world.api).read()).holder == "" and not second.held
    third = lease(world, time, "c")
    await third.acquire()
    assert third.held and time.now == 0
    await second.release()
    assert (await world.keeper(world.api).read()).holder == "c"


@WORLDS
async def test_who_renewed_a_moment_ago_is_not_asked_for(world_of: Callable[[], World]) -> None:
    """The one that waits costs the engine little while all is well, and takes over soon after it is not."""
    world, time = world_of(), Time()
    ended_at = float("inf")
    asked: list[float] = []

    async def gone(_: str) -> bool:
        asked.append(time.now)
        return time.now >= ended_at

    first, second = lease(world, time, "a"), lease(world, time, "b", gone)
    await first.acquire()
    async with asyncio.TaskGroup() as tasks:
        keeping, waiting = tasks.create_task(first.keep()), tasks.create_task(second.acquire())
        await time.run_until(20.25, lambda: None)
        assert 0 < len(asked) <= 22  # of 41 looks
        ended_at = time.now
        keeping.cancel()
        await time.run_until(ended_at + 1.5, lambda: None)
        assert second.held and waiting.done()


@WORLDS
async def test_who_lets_go_does_so_though_others_write(world_of: Callable[[], World]) -> None:
    """Where the right stands, there may stand more."""
    world, time = world_of(), Time()
    first = lease(world, time, "a")
    await first.acquire()
    once_before_a_write(world)
    await first.release()
    assert (await world.keeper(world.api).read()).holder == ""


@WORLDS
async def test_who_lost_it_is_told(world_of: Callable[[], World]) -> None:
    """One that comes back from a long pause finds another one."""
    world, time = world_of(), Time()
    first, second = lease(world, time, "a"), lease(world, time, "b")
    await first.acquire()
    world.api.away = EngineUnavailable("cut off")
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.keep())
            await time.run_until(TERM_S * 2, lambda: None)
            assert not first.held
            world.api.away = None
            keeper = world.keeper(world.api)
            await keeper.write(await keeper.read(), "b")
            await time.run_until(TERM_S * 3, lambda: None)
    assert raised.group_contains(Conflict, match="another controller acts now: b")
    assert not second.held


@WORLDS
async def test_whose_place_nobody_took_acts_again(world_of: Callable[[], World]) -> None:
    """After a time without an answer, though somebody else writes just when it asks."""
    world, time = world_of(), Time()
    first = lease(world, time, "a")
    await first.acquire()
    world.api.away = EngineUnavailable("cut off")
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(first.keep())
        await time.run_until(TERM_S * 2, lambda: None)
        assert not first.held
        world.api.away = None
        once_before_a_write(world)
        await time.run_until(TERM_S * 3, lambda: None)
        assert first.held
        keeping.cancel()


@WORLDS
async def test_who_waits_does_so_while_nobody_answers(world_of: Callable[[], World]) -> None:
    """One that ended then would be started less and less often."""
    world, time = world_of(), Time()
    world.api.away = EngineUnavailable("its etcd is away")
    first = lease(world, time, "a")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(first.acquire())
        await time.run_until(60, lambda: None)
        assert not waiting.done()
        world.api.away = None
        await time.run_until(62, lambda: None)
        assert waiting.done() and first.held


def once_before_a_write(world: World) -> None:
    """Somebody else writes once, between a look and the write that follows."""

    def somebody_else() -> None:
        world.api.before_write = lambda: None
        world.touch()

    world.api.before_write = somebody_else


async def test_on_swarm_it_is_a_label() -> None:
    """Of a renewal each, beside those of the state; versions of Shoal hand it over to each other."""
    world, time = OnSwarm(), Time()
    first = lease(world, time, "a")
    await first.acquire()
    await first.acquire()
    labels = world.api.kept["services"]["f_shoal-state"]["Spec"]["Labels"]
    assert labels == {"shoal.fleet": "f", LEASE: "a 2"}
    await first.release()
    assert world.api.kept["services"]["f_shoal-state"]["Spec"]["Labels"] == {"shoal.fleet": "f"}


async def test_on_kubernetes_it_is_a_lease() -> None:
    """With the fields that people and tools know from the cluster's own."""
    world, time = OnKubernetes(), Time()
    await lease(world, time, "a").acquire()
    first = world.api.of(kubernetes_kinds.LEASE)["shoal-controller"]
    now = "2026-01-01T00:00:00.500000Z"
    assert first["spec"] == {
        "holderIdentity": "a", "leaseDurationSeconds": TERM_S, "acquireTime": now, "renewTime": now,
        "leaseTransitions": 0,
    }  # fmt: skip
    keeper = KubernetesLease(world.api, "f", clock=lambda: 1767225603.0)
    later = "2026-01-01T00:00:03.000000Z"
    await keeper.write(await keeper.read(), "a")
    renewed = world.api.of(kubernetes_kinds.LEASE)["shoal-controller"]["spec"]
    assert renewed == {**first["spec"], "renewTime": later}
    await keeper.write(await keeper.read(), "b")
    taken = world.api.of(kubernetes_kinds.LEASE)["shoal-controller"]["spec"]
    assert taken == {**renewed, "holderIdentity": "b", "acquireTime": later, "leaseTransitions": 1}


async def test_a_kubernetes_that_hangs_is_one_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told early enough for another try within the term."""
    assert kubernetes_lease._ANSWER_S < TERM_S / 3
    monkeypatch.setattr(kubernetes_lease, "_ANSWER_S", 0.0)

    class Hanging(FakeKubernetes):
        async def find(self, kind: Kind, name: str) -> dict[str, Any] | None:
            await asyncio.get_running_loop().create_future()
            return None

    with pytest.raises(EngineUnavailable, match="did not answer about Lease shoal-controller"):
        await KubernetesLease(Hanging(), "f").read()


class Slow:
    """An engine that answers each of one controller's calls late, or loses what it asked or answered."""

    def __init__(self, api: object, time: Time, draw: Callable[[], tuple[float, float, bool, bool]]) -> None:
        self._api, self._time, self._draw = api, time, draw

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def call(*arguments: object) -> object:
            before_s, after_s, lost, answer_lost = self._draw()
            await self._time.sleep(before_s)
            if lost:
                raise EngineUnavailable("lost")
            answer = await getattr(self._api, name)(*arguments)
            await self._time.sleep(after_s)
            if answer_lost:
                raise EngineUnavailable("answered, and lost")
            return answer

        return call


DELAYS = st.tuples(
    st.sampled_from([0.0, 0.1, 1.0, 5.0, 20.0]), st.sampled_from([0.0, 0.1, 3.0, 20.0]), st.booleans(), st.booleans()
)


@WORLDS
@settings(max_examples=60, deadline=None)
@given(delays=st.lists(DELAYS, min_size=1, max_size=60), count=st.integers(2, 4))
async def test_never_two(
    world_of: Callable[[], World], delays: list[tuple[float, float, bool, bool]], count: int
) -> None:
    """Whatever is late or lost, for each of several controllers that all want to act."""
    world, time = world_of(), Time()
    drawn = itertools.cycle(delays)
    slow = Slow(world.api, time, lambda: next(drawn))
    leases = [
        Lease(world.keeper(slow), f"c{n}", gone=nobody_knows, now=time.read, sleep=time.sleep) for n in range(count)
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
            except Conflict:
                await time.sleep(0.3)

    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(live(each)) for each in leases]
        await time.run_until(300.0, count_holders)
        for each in lives:
            each.cancel()
    assert most <= 1
