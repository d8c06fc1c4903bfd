"""What a controller on Kubernetes begins with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from shoal.api.kubernetes_controller import (
    _control,  # pyright: ignore[reportPrivateUsage]
    _has_ended,  # pyright: ignore[reportPrivateUsage]
    _lead,  # pyright: ignore[reportPrivateUsage]
)
from shoal.engines.kubernetes.api import Kind, KubernetesError
from shoal.engines.kubernetes.api.kinds import POD
from shoal.engines.kubernetes.api.refusals import refusal
from shoal.engines.kubernetes.names import LEADER, Role, fleet_labels
from shoal.engines.kubernetes.render_own import OWN_CONTAINER, Own, render_controller
from shoal.errors import EngineUnavailable
from shoal.spec.engine_options import KubernetesOptions
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


class Pods(FakeKubernetes):
    """Of controllers. `refuses` is what is said to each try to change a pod, by its name; then it is changed."""

    def __init__(self, **refuses: Sequence[Exception]) -> None:
        super().__init__()
        self.refuses = {name: list(errors) for name, errors in refuses.items()}

    async def patch(self, kind: Kind, name: str, change: Mapping[str, Any], sub: str | None = None) -> dict[str, Any]:
        if self.refuses.get(name):
            raise self.refuses[name].pop(0)
        return await super().patch(kind, name, change, sub)

    def add(self, name: str, states: Mapping[str, str], *, leads: bool = False) -> None:
        """With the state of each of its containers."""
        labels = fleet_labels("shop", Role.CONTROLLER, **({"leader": "true"} if leads else {}))
        containers = [{"name": container, "state": {state: {}}} for container, state in states.items()]
        self.of(POD)[name] = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": name, "labels": labels},
            "status": {"phase": "Running", "containerStatuses": containers},
        }

    @property
    def leaders(self) -> set[str]:
        return {name for name, pod in self.of(POD).items() if pod["metadata"]["labels"].get(LEADER)}


def answer(status: int, reason: str = "") -> Exception:
    return refusal("fake://", "patch Pod a", status, {"reason": reason, "message": f"it says {status}"})


async def lead(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """`b` takes over from `a`; gives how long it waited in between."""
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    pods.add("a", {"shoal": "terminated"}, leads=True)
    pods.add("b", {"shoal": "running"})
    await _lead(pods, "shop", "b")
    return waits


async def test_the_service_leads_to_who_took_over_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the API server could not serve: by the label of the one before calls would reach nobody."""
    flooded, conflict, unreached = answer(429), answer(409, "Conflict"), EngineUnavailable("no route")
    pods = Pods(a=[answer(503), flooded, conflict, unreached], b=[answer(503)])
    waits = await lead(pods, monkeypatch)
    assert pods.leaders == {"b"}
    assert len(waits) == 5 and max(waits) <= 0.5


async def test_who_took_over_acts_where_the_one_before_is_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is nothing to tell of."""
    pods = Pods(a=[answer(404, "NotFound")])
    assert await lead(pods, monkeypatch) == []
    assert "b" in pods.leaders and not caplog.messages


async def test_a_label_that_stays_is_told_and_keeps_nobody_from_acting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pods = Pods(a=[answer(403, "Forbidden")])
    assert await lead(pods, monkeypatch) == []
    assert pods.leaders == {"a", "b"}
    (told,) = caplog.messages
    assert "it says 403" in told and "as long as a has the label shoal.dev/leader some calls reach nobody" in told


async def test_who_may_not_take_the_label_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would find it."""
    with pytest.raises(KubernetesError, match="it says 403"):
        await lead(Pods(b=[answer(403, "Forbidden")]), monkeypatch)


@pytest.mark.parametrize(
    ("states", "ended"),
    [
        ({"shoal": "running", "mesh": "terminated"}, False),
        ({"shoal": "running", "mesh": "waiting"}, False),
        ({"shoal": "terminated", "mesh": "running"}, True),
        ({"mesh": "terminated"}, False),
    ],
)
async def test_a_controller_has_ended_when_its_own_container_has(states: Mapping[str, str], ended: bool) -> None:
    """Whatever becomes of one that was put beside it: it would lose a lease that it uses."""
    pods = Pods()
    pods.add("a", states)
    assert await _has_ended(pods, "a") is ended


def test_the_controllers_own_container_is_the_one_that_is_looked_at() -> None:
    deployment = render_controller(Own("shop", "shop", "shoal:1", KubernetesOptions()))[-1]
    assert [each["name"] for each in deployment["spec"]["template"]["spec"]["containers"]] == [OWN_CONTAINER]


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
