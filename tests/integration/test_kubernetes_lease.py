"""Who may act for a fleet, on a real Kubernetes: a Lease of its API, read and written as its own controllers do."""

from __future__ import annotations

import asyncio

import pytest
from kubernetes_namespace import a_namespace

from shoal.control.kubernetes_lease import KubernetesLease
from shoal.control.lease import Lease
from shoal.engines.kubernetes.api.kinds import LEASE
from shoal.errors import Conflict

pytestmark = pytest.mark.kubernetes


async def test_one_acts_and_the_next_one_follows() -> None:
    """Of two at once one gets it; what the other wrote on what it saw before is refused; who lets go is followed."""
    async with a_namespace() as kubernetes:
        keeper = KubernetesLease(kubernetes, "f")
        seen_before = await keeper.read()
        gone: set[str] = set()

        async def has_ended(holder: str) -> bool:
            return holder in gone

        first, second = (Lease(keeper, name, gone=has_ended) for name in ("a", "b"))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(each.acquire()) for each in (first, second)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            winner, other = (first, second) if first.held else (second, first)
            assert winner.held and not other.held
            with pytest.raises(Conflict):
                await keeper.write(seen_before, "c")
            await winner.acquire()
            lease = await kubernetes.get(LEASE, "shoal-controller")
            assert lease["spec"]["holderIdentity"] == winner.holder
            gone.add(winner.holder)
            await asyncio.wait(waiting)
        assert other.held
        await other.release()
        lease = await kubernetes.get(LEASE, "shoal-controller")
        assert (lease["spec"].get("holderIdentity", ""), lease["spec"]["leaseTransitions"]) == ("", 1)
        third = Lease(keeper, "c", gone=has_ended)
        await third.acquire()
        assert third.held
