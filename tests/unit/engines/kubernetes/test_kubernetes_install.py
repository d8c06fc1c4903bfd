"""What is put into a namespace by several at once."""

from __future__ import annotations

import asyncio
from typing import Any

from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import NAMESPACE
from shoal.engines.kubernetes.install import make_namespace
from tests.fake_kubernetes import FakeKubernetes


async def test_a_namespace_that_somebody_else_makes_meanwhile_is_taken() -> None:
    """Two first `up` both find none."""

    class Slow(FakeKubernetes):
        async def find(self, kind: Kind, name: str) -> dict[str, Any] | None:
            found = await super().find(kind, name)
            await asyncio.sleep(0)
            return found

    cluster = Slow()
    await asyncio.gather(make_namespace(cluster, "shop"), make_namespace(cluster, "shop"))
    assert list(cluster.of(NAMESPACE)) == ["f"]
