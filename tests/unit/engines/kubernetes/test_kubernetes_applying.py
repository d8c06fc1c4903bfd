"""What is applied and what is left alone, and what is told of what can't be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.client import MANAGER
from shoal.engines.kubernetes.api.kinds import CONFIG_MAP, DEPLOYMENT, SERVICE
from shoal.engines.kubernetes.api.refusals import refusal
from shoal.engines.kubernetes.applying import ensure, try_out
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.errors import EngineError, EngineUnavailable
from tests.fake_kubernetes import FakeKubernetes

Object = dict[str, Any]


class Cluster(FakeKubernetes):
    """One whose calls are counted; `full` of a kind refuses it, and `gone_at` is the kind at which it goes away."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.full: Kind | None = None
        self.gone_at: Kind | None = None
        self.says: tuple[int, str] = (403, "is forbidden: exceeded quota: small")

    async def get(self, kind: Kind, name: str) -> Object:
        self.calls.append(f"get {name}")
        return await super().get(kind, name)

    async def list(self, kind: Kind, labels: Mapping[str, str] = {}, *, fields: str = "") -> tuple[list[Object], str]:
        self.calls.append(f"list {kind.plural}")
        return await super().list(kind, labels, fields=fields)

    async def apply(self, kind: Kind, item: Mapping[str, Any], **more: Any) -> Object:
        if kind == self.gone_at:
            raise EngineUnavailable("Kubernetes at fake can't be reached")
        if kind == self.full:
            status, words = self.says
            raise refusal("fake", f"apply {kind.name}", status, {"message": f"{item['metadata']['name']} {words}"})
        return await super().apply(kind, item, **more)


def thing(kind: Kind, name: str, role: Role = Role.GATEWAY, **spec: Any) -> Object:
    labels = fleet_labels("shop", role)
    about = {"name": name, "labels": labels}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": about, "spec": spec}


async def test_what_is_unchanged_costs_a_list_of_its_kind() -> None:
    """Not a call an object; another content is applied, and that alone."""
    cluster = Cluster()
    items = [thing(SERVICE, f"s{number}", port=number) for number in range(9)]
    assert len(await ensure(cluster, "shop", items)) == 9
    cluster.calls.clear()
    assert await ensure(cluster, "shop", items) == []
    assert cluster.calls == ["list services"]
    items[3] = thing(SERVICE, "s3", port=99)
    assert [item["metadata"]["name"] for item in await ensure(cluster, "shop", items)] == ["s3"]
    assert cluster.of(SERVICE)["s3"]["spec"] == {"port": 99}


async def test_what_somebody_else_changed_or_removed_is_put_back() -> None:
    """By who owns the field, though what was applied last says nothing of it."""
    cluster = Cluster()
    items = [thing(SERVICE, "a", port=80), thing(SERVICE, "b", port=80)]
    await ensure(cluster, "shop", items)
    del cluster.of(SERVICE)["b"]
    changed = cluster.of(SERVICE)["a"]
    changed["spec"]["port"] = 81
    changed["metadata"]["managedFields"] = [{"manager": "kubectl-edit", "fieldsV1": {"f:spec": {"f:port": {}}}}]
    assert len(await ensure(cluster, "shop", items)) == 2
    assert cluster.of(SERVICE)["a"]["spec"]["port"] == cluster.of(SERVICE)["b"]["spec"]["port"] == 80


async def test_a_count_of_shoals_own_pods_is_put_back_whoever_set_it() -> None:
    """A controller that was scaled to zero under Shoal's own name comes with the next `up`."""
    cluster = Cluster()
    items = [thing(DEPLOYMENT, "shoal-controller", Role.CONTROLLER, replicas=2)]
    await ensure(cluster, "shop", items)
    scaled = cluster.of(DEPLOYMENT)["shoal-controller"]
    scaled["spec"]["replicas"] = 0
    scaled["metadata"]["managedFields"] = [{"manager": MANAGER, "fieldsV1": {"f:spec": {"f:replicas": {}}}}]
    assert len(await ensure(cluster, "shop", items)) == 1
    assert cluster.of(DEPLOYMENT)["shoal-controller"]["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("labels", "whose"), [({"shoal.dev/fleet": "other"}, "of fleet other"), ({}, "not ours (made by helm, kubectl)")]
)
async def test_what_is_of_somebody_else_stays(labels: Mapping[str, str], whose: str) -> None:
    """And is told with its owner, and what to do."""
    cluster = Cluster()
    managers = [{"manager": "kubectl"}, {"manager": "helm"}]
    theirs = thing(SERVICE, "a", port=80)
    theirs["metadata"] |= {"labels": dict(labels), "managedFields": managers}
    await cluster.create(SERVICE, theirs)
    with pytest.raises(EngineError, match=re.escape(f"the Service a in f is {whose}: give this fleet a namespace")):
        await ensure(cluster, "shop", [thing(SERVICE, "a", port=81)])
    assert cluster.of(SERVICE)["a"]["spec"]["port"] == 80 and cluster.writes == 0


async def test_what_is_done_before_a_refusal_is_told() -> None:
    """Each refusal once, how much was done, and that it goes on from there."""
    cluster = Cluster()
    cluster.full = DEPLOYMENT
    items = [thing(CONFIG_MAP, "c"), *(thing(DEPLOYMENT, name) for name in ("d", "e")), thing(SERVICE, "s")]
    for item in items:
        item.setdefault("data", {})
    with pytest.raises(EngineError) as told:
        await ensure(cluster, "shop", items)
    first, second, rest = str(told.value).splitlines()
    assert "d is forbidden: exceeded quota" in first and "kubectl describe quota" in first and "e is" in second
    assert rest.startswith("2 of the 4 objects that Shoal itself needs were made or changed before")
    cluster.full = None
    assert {item["metadata"]["name"] for item in await ensure(cluster, "shop", items)} == {"d", "e"}


async def test_what_is_done_before_the_api_goes_away_is_told() -> None:
    """As it is before a refusal."""
    cluster = Cluster()
    cluster.gone_at = SERVICE
    with pytest.raises(EngineUnavailable, match="can't be reached") as told:
        await ensure(cluster, "shop", [{**thing(CONFIG_MAP, "c"), "data": {}}, thing(SERVICE, "s")])
    assert str(told.value).splitlines()[1].startswith("1 of the 2 objects that Shoal itself needs were made")


async def test_a_trial_tells_all_refusals_and_changes_nothing() -> None:
    """Also those that would come only after others."""
    cluster = Cluster()
    cluster.full = DEPLOYMENT
    items = [{**thing(CONFIG_MAP, "c"), "data": {}}, thing(DEPLOYMENT, "d"), thing(DEPLOYMENT, "e")]
    with pytest.raises(EngineError) as told:
        await try_out(cluster, "shop", items)
    assert [line.count("exceeded quota: small") for line in str(told.value).splitlines()] == [1, 1]
    assert cluster.writes == 0 and not cluster.of(CONFIG_MAP)
    cluster.full = None
    await try_out(cluster, "shop", items)
    assert cluster.writes == 0 and not cluster.of(CONFIG_MAP)


@pytest.mark.parametrize("says", [(404, 'role "shoal" not found'), (400, "webhook: it does not support dry run")])
async def test_a_trial_passes_over_what_is_refused_only_to_it(says: tuple[int, str]) -> None:
    """What refers to something that was not really made before, and a webhook that wants to be asked in earnest."""
    cluster = Cluster()
    cluster.full, cluster.says = DEPLOYMENT, says
    await try_out(cluster, "shop", [thing(DEPLOYMENT, "d")])
    with pytest.raises(EngineError, match=says[1]):
        await ensure(cluster, "shop", [thing(DEPLOYMENT, "d")])
    assert not cluster.of(DEPLOYMENT)
