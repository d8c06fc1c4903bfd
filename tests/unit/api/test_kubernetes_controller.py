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
            await _control(cluster, "shop", nobody, nobody, nobody, tasks)
    assert cluster.asked == ["secrets"]


async def test_who_follows_logs_has_connections_of_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of them; those for watches, writes and the store are not his to take."""
    given = list[Any]()

    class Made(Exception):
        pass

    def make(kubernetes: FakeKubernetes, fleet: str, *, streams: Any, **more: object) -> None:
        given[:] = [kubernetes, streams]
        raise Made

    monkeypatch.setattr("shoal.api.kubernetes_controller.KubernetesEngine", make)
    cluster, nobody = Cluster(), cast("Any", None)
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(Made):
            await _control(cluster, "shop", nobody, nobody, nobody, tasks)
    assert given[0] is cluster and given[1] is not cluster and given[1]._connections == 0
