"""The engine while the API server of a real Kubernetes is away, and after it came back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from kubernetes_rig import PATIENCE_S, Rig, a_rig

from shoal.core.action import Scale
from shoal.errors import EngineUnavailable
from testbed.kubernetes import control_plane, life
from tests.kubernetes_cluster import Cluster, ClusterImages

TALKS = "import time\nfor n in range(6000): print(n, flush=True); time.sleep(0.1)"
SOON_S = 15.0


@pytest.fixture
async def rig(kubernetes_images: ClusterImages) -> AsyncIterator[Rig]:
    async with a_rig(kubernetes_images.agents) as rig:
        yield rig


async def test_a_server_that_comes_back(rig: Rig, kubernetes: Cluster) -> None:
    """It is told that it is away; then all goes on, within seconds although nothing happened meanwhile: what is seen,
    what is done, and who follows logs has every line once."""
    agent = {"command": ["python3", "-c", TALKS], "queue": "tasks", "stop_grace_period": "1s"}
    made = rig.ensure("web", agent)
    await rig.act(made, Scale("web", made.revision, 1))
    await rig.ready("web", 1)
    numbers: list[int] = []
    written = math.inf
    with kubernetes.to_be_broken() as bed:
        async with asyncio.timeout(PATIENCE_S), aclosing(rig.engine.logs("web", follow=True)) as lines:
            async for line in lines:
                numbers.append(int(line.text))
                if len(numbers) == 30:
                    begun = time.monotonic()
                    control_plane.part_of(bed, "kube-apiserver").stop()
                    await _away(rig)
                    await asyncio.to_thread(life.run_part, bed, "kube-apiserver")
                    back = time.monotonic()
                    await _heard(rig)
                    assert time.monotonic() - back < SOON_S
                    print(f"away for {back - begun:.1f}s, heard {time.monotonic() - back:.1f}s after it was back")
                    written = len(numbers) + 10 * (back - begun)  # one line each tenth of a second
                if len(numbers) > written:
                    break
        assert numbers == list(range(len(numbers)))
        await rig.act(Scale("web", made.revision, 2))
        await rig.ready("web", 2)


async def _away(rig: Rig) -> None:
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                await rig.engine.observe()
            except EngineUnavailable:
                return
            await asyncio.sleep(0.1)


async def _heard(rig: Rig) -> None:
    while True:
        try:
            await rig.engine.observe()
        except EngineUnavailable:
            await asyncio.sleep(0.1)
        else:
            return
