"""What a controller on Kubernetes begins with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from shoal.api.kubernetes_controller import _control  # pyright: ignore[reportPrivateUsage]
from shoal.engines.kubernetes.api import Kind, KubernetesError
from tests.fake_kubernetes import NO_LABELS, FakeKubernetes


class Cluster(FakeKubernetes):
    """One that notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def list(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        self.asked.append(kind.plural)
        return await super().list(kind, labels, fields=fields)


async def test_secrets_are_known_before_anything_is_shown() -> None:
    """What replicas wrote is masked by them; where they can't be read nothing is served."""
    cluster = Cluster()
    nobody = cast("Any", None)
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(KubernetesError, match="get Deployment shoal-controller"):
            await _control(cluster, "shop", nobody, nobody, tasks)
    assert cluster.asked == ["secrets"]
