"""Controllers on a real Kubernetes that lose their turn in the middle of a rollout, under load: the Lease stolen, all
killed at once, frozen for longer than the Lease lasts, killed after each write.

No request fails that may be repeated, none is done twice that must not be, the rollout ends, with no replica too many;
and by the API server's own account nobody writes out of turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest
from kubernetes_under_load import REPLICAS, UnderLoad, under_load

from bench.controller_pods import signal_to
from bench.controller_turns import Turns
from shoal.errors import ControllerUnavailable
from testbed.kubernetes.bed import KubeBed
from tests.conformance.load import Load
from tests.kubernetes_cluster import Cluster


@pytest.fixture
def testbed(kubernetes: Cluster) -> KubeBed:
    if kubernetes.bed is None:
        pytest.skip("controllers are killed and watched from outside, which only the bed's can be (make kube-up)")
    return kubernetes.bed


@pytest.fixture
async def fleet(kubernetes: Cluster, testbed: KubeBed) -> AsyncIterator[UnderLoad]:
    async with under_load(kubernetes) as made:
        yield made


@pytest.fixture
async def turns(testbed: KubeBed, fleet: UnderLoad) -> Turns:
    return Turns(testbed, fleet.bed.namespace)


@asynccontextmanager
async def begun(fleet: UnderLoad, turns: Turns, pod: str, writes: int, version: str = "2") -> AsyncGenerator[None]:
    """A rollout, from when the controller has written so often for it; who asked for it may hear no more of it."""

    async def ask() -> None:
        with contextlib.suppress(ControllerUnavailable):
            await fleet.bed.store(fleet.spec(version))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask())
        await turns.written(pod, writes)
        yield


@asynccontextmanager
async def rollouts(fleet: UnderLoad, turns: Turns, versions: int = 1) -> AsyncGenerator[Load]:
    """What happens to the controllers within this does no harm to so many rollouts."""
    async with fleet.loads(await fleet.bed.url()) as (seen, _):
        yield seen
        await fleet.whole_again()
        status, answer = await fleet.bed.get("/web/")
        assert (status, answer["version"]) == (200, f"{versions + 1}")
    assert len(seen.replicas) == (versions + 1) * REPLICAS
    assert set(seen.versions) == {f"{version}" for version in range(1, versions + 2)}
    print({pod: len(turns.writes(pod)) for pod in {each.pod for each in turns.writes()}})
    assert turns.out_of_turn() == []


async def first_of_three(fleet: UnderLoad, turns: Turns) -> str:
    """The controller that acts, which has begun a rollout; two more wait."""
    first = await fleet.controllers.leader()
    async with begun(fleet, turns, first, 2):
        pass
    await fleet.controllers.set_count(3)
    return first


async def test_the_lease_is_stolen(fleet: UnderLoad, turns: Turns) -> None:
    """By somebody who does nothing with it: who acted stops at its next look, and of three that wait one acts then."""
    controllers = fleet.controllers
    async with rollouts(fleet, turns):
        first = await first_of_three(fleet, turns)
        await controllers.steal("somebody")
        assert "another controller acts now: somebody" in await controllers.said_before(first)
        written = len(turns.writes())
        await controllers.leader()
    assert len(turns.writes()) > written


async def test_all_controllers_are_killed_at_once(fleet: UnderLoad, turns: Turns) -> None:
    """Three of them: they start together, and one goes on."""
    async with rollouts(fleet, turns):
        await first_of_three(fleet, turns)
        for name in await fleet.controllers.names():
            signal_to(name, SIGKILL)


@pytest.mark.parametrize("writes", [1, 4])
async def test_a_controller_is_frozen(fleet: UnderLoad, turns: Turns, writes: int) -> None:
    """Another one goes on, and the one that wakes up writes nothing more."""
    controllers = fleet.controllers
    async with rollouts(fleet, turns):
        first = await controllers.leader()
        async with begun(fleet, turns, first, writes):
            signal_to(first, SIGSTOP)
            try:
                second = await controllers.another_leader(first)
            finally:
                signal_to(first, SIGCONT)
        assert f"another controller acts now: {second}" in await controllers.said_before(first)
    assert turns.writes(second)


@pytest.mark.parametrize("steps", [(1, 2, 3), (4, 5, 6)])
async def test_a_controller_is_killed_after_each_write(
    fleet: UnderLoad, turns: Turns, testbed: KubeBed, steps: tuple[int, ...]
) -> None:
    """The next one ends the rollout."""
    async with rollouts(fleet, turns, len(steps)):
        for version, writes in enumerate(steps, 2):
            first, since = await fleet.controllers.leader(), Turns(testbed, fleet.bed.namespace)
            async with begun(fleet, since, first, writes, f"{version}"):
                signal_to(first, SIGKILL)
            began = time.monotonic()
            await fleet.whole_again()
            print(f"killed after {len(since.writes(first))} writes, done {time.monotonic() - began:.1f}s later")
