"""What `shoal doctor` finds of a cluster: which rights and add-ons are missing, and what each costs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shoal.api.client import Client
from shoal.cli.findings import Finding
from shoal.cli.kubernetes.health_checks import check_kubernetes
from shoal.cli.kubernetes.place import KubernetesPlace
from shoal.engines.kubernetes.api import Kind, Kubernetes
from shoal.engines.kubernetes.api.kinds import NAMESPACE, NODE, STORAGE_CLASS
from shoal.engines.kubernetes.api.refusals import refusal
from shoal.engines.kubernetes.removal import remove_all
from shoal.errors import ControllerUnavailable
from shoal.spec.model import Fleet
from tests.fake_kubernetes import NO_LABELS, FakeKubernetes

AGENT: dict[str, Any] = {"image": "acme/web:1", "port": 80}
QUEUES: dict[str, Any] = {
    "agents": {"work": {"image": "acme/web:1", "queue": "tasks"}},
    "queues": {"tasks": {"broker": "main"}},
    "brokers": {"main": {"type": "rabbitmq", "url": "amqp://rabbit", "management_url": "http://rabbit"}},
}


def fleet(**more: Any) -> Fleet:
    return Fleet.model_validate({"fleet": "shop", "engine": "kubernetes", "agents": {"web": AGENT}, **more})


class Cluster(FakeKubernetes):
    """One where some things may not be done, as `list nodes`; `used` is what was done of such."""

    def __init__(self, forbidden: Collection[str] = (), version: tuple[int, int] = (1, 34)) -> None:
        super().__init__()
        self.forbidden = forbidden
        self.is_of = version
        self.used: set[str] = set()

    async def version(self) -> tuple[int, int]:
        return self.is_of

    async def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        if method != "POST":
            return await super().request(method, path, **more)
        about = more["json"]["spec"]["resourceAttributes"]
        words = (about["verb"], about["resource"] + f"/{about['subresource']}".rstrip("/"))
        return {"status": {"allowed": " ".join(words) not in self.forbidden}}

    async def get(self, kind: Kind, name: str) -> dict[str, Any]:
        self.note("get", kind)
        return await super().get(kind, name)

    async def list(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        self.note("list", kind)
        return await super().list(kind, labels, fields=fields)

    async def delete(self, kind: Kind, name: str, *, grace_s: int | None = None, wait: bool = False) -> bool:
        self.note("delete", kind)
        return await super().delete(kind, name, grace_s=grace_s, wait=wait)

    def note(self, verb: str, kind: Kind) -> None:
        self.used.add(f"{verb} {kind.plural}")
        if f"{verb} {kind.plural}" in self.forbidden:
            raise refusal("fake://", verb, 403, {"reason": "Forbidden", "message": f"{verb} {kind.plural}: forbidden"})


class Place(KubernetesPlace):
    """In the fake, without a controller."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__("shop", None, "f", {})
        self._cluster = cluster

    @asynccontextmanager
    async def kubernetes(self) -> AsyncGenerator[Kubernetes]:
        yield self._cluster

    def client(self) -> Client:
        raise ControllerUnavailable("nobody answers")


async def found(cluster: Cluster, spec: Fleet | None = None) -> dict[str, Finding]:
    return {each.check: each for each in await check_kubernetes(Place(cluster), spec or fleet())}


async def node(cluster: FakeKubernetes, name: str, gpus: str | None) -> None:
    status = {"allocatable": {"cpu": "4", **({"nvidia.com/gpu": gpus} if gpus else {})}}
    await cluster.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status})


async def test_who_has_the_rights_that_are_named_can_end_the_fleet() -> None:
    """All that `down --volumes` does was looked at."""
    cluster = Cluster()
    await cluster.create(
        NAMESPACE,
        {
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "f", "labels": {"shoal.dev/fleet": "shop"}},
        },
    )  # fmt: skip
    ended = Cluster()
    ended.kept = cluster.kept
    await remove_all(ended, "shop", data=True)
    for right in ended.used | {"delete leases", "delete horizontalpodautoscalers", "delete jobs", "delete configmaps"}:
        cluster.forbidden = [right]
        ends = [(await found(cluster))[check] for check in ("rights_to_end", "rights_to_namespace")]
        assert any(right in each.found and each.result != "ok" for each in ends), right


@pytest.mark.parametrize("version", [(1, 30), (1, 36), (2, 0)])
async def test_a_version_that_is_supported(version: tuple[int, int]) -> None:
    checks = await found(Cluster(version=version))
    told = f"{version[0]}.{version[1]} at fake://kubernetes"
    assert checks["kubernetes"] == Finding("kubernetes", "ok", told) and "namespace" in checks


@pytest.mark.parametrize("version", [(1, 29), (0, 99)])
async def test_a_version_that_is_too_old(version: tuple[int, int]) -> None:
    """What else is there tells nothing then, and nobody looks for it."""
    cluster = Cluster(version=version)
    checks = await found(cluster)
    told = f"{version[0]}.{version[1]} at fake://kubernetes"
    lack = "older ones have no native `sleep` before a stop and no exec over WebSockets"
    assert checks["kubernetes"] == Finding("kubernetes", "failure", told, f"expected 1.30 or newer: {lack}")
    assert set(checks) == {"kubernetes", "controller"} and not cluster.used


async def test_a_namespace_that_one_may_not_remove() -> None:
    """It is left, which is no failure."""
    checks = await found(Cluster(["delete namespaces"]))
    assert checks["rights_to_namespace"] == Finding(
        "rights_to_namespace", "note", "you may not delete namespaces", "`shoal down --volumes` leaves f, and says so"
    )
    assert checks["rights_to_end"].result == "ok"


async def test_a_broker_of_the_fleets_own_needs_a_volume() -> None:
    """One outside needs none, and one that agents only publish to does."""
    outside, inside = QUEUES, {**QUEUES, "queues": {"tasks": {}}, "brokers": {}}
    assert (await found(Cluster(), fleet(**outside)))["storage"].result == "ok"
    storage = (await found(Cluster(), fleet(**inside)))["storage"]
    assert storage.result == "failure" and "the embedded broker need volumes" in storage.remedy
    cluster = Cluster()
    about = {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    await cluster.create(STORAGE_CLASS, {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": about})
    assert (await found(cluster, fleet(**inside)))["storage"].result == "ok"


@pytest.mark.parametrize(
    ("offered", "result", "words"),
    [
        (["2", None], "ok", "a node offers up to 2 nvidia.com/gpu"),
        (["1", "1"], "warning", "no node offers 2 nvidia.com/gpu; the most is 1"),
        ([None], "warning", "no node offers 2 nvidia.com/gpu; the most is 0"),
        ([], "warning", "no node offers 2 nvidia.com/gpu; the most is 0"),
    ],
)
async def test_gpus(offered: Sequence[str | None], result: str, words: str) -> None:
    """One node has to have all that a replica asks for."""
    cluster = Cluster()
    for number, gpus in enumerate(offered):
        await node(cluster, f"n{number}", gpus)
    spec = fleet(agents={"web": AGENT, "model": {**AGENT, "resources": {"gpu": 2}}})
    gpu = (await found(cluster, spec))["gpus"]
    assert (gpu.result, gpu.found) == (result, words)
    assert result == "ok" or gpu.remedy.startswith("until one does model can't start: install NVIDIA's")
    assert "gpus" not in await found(cluster), "nobody asks for one"


async def test_nodes_that_nobody_may_list() -> None:
    """Then nothing is known of them."""
    spec = fleet(agents={"model": {**AGENT, "resources": {"gpu": 1}}})
    gpu = (await found(Cluster(["list nodes"]), spec))["gpus"]
    assert gpu.result == "note" and gpu.remedy == "where none offers nvidia.com/gpu model can't start"


async def test_what_cannot_be_seen_is_said() -> None:
    """With what it costs, and how to see it."""
    policies = (await found(Cluster()))["network_policies"]
    assert policies.result == "note" and "reaches agents past the gateways" in policies.remedy
    assert "has to time out" in policies.remedy
