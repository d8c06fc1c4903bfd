"""What agents have beside their replicas is made, kept and put back; what is somebody else's of that name is left."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_kubernetes_acts import Cluster, on

from shoal.core.action import Autoscale, EnsureRevision, Remove, Scale
from shoal.core.revision import template_of
from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    SERVICE,
    STATEFUL_SET,
)
from shoal.engines.kubernetes.engine import KubernetesEngine
from shoal.spec.model import Fleet
from shoal.spec.scaling import Scale as Rules

Object = dict[str, Any]
RULES = Rules.model_validate({"min": 2, "max": 8, "target": {"cpu": "70%"}})


def ensure(*, stateful: bool = False, **agent: Any) -> EnsureRevision:
    given = {"image": "acme/db", "port": 5432, "stateful": stateful, **agent}
    fleet = Fleet.model_validate({"fleet": "shop", "engine": "kubernetes", "agents": {"db": given}})
    return EnsureRevision("db", "r1", template_of(fleet, "db", {}), {})


async def made_by_helm(cluster: Cluster, kind: Kind, name: str) -> Object:
    about = {"name": name, "labels": {"helm": "db"}, "managedFields": [{"manager": "helm"}]}
    spec = {"selector": {"app": "db"}, "replicas": 3}
    return await cluster.create(
        kind, {"kind": kind.name, "apiVersion": kind.api_version, "metadata": about, "spec": spec}
    )


@pytest.mark.parametrize(
    ("kind", "name", "stateful"),
    [(SERVICE, "db", True), (STATEFUL_SET, "db", True), (CONFIG_MAP, "db-r1", True), (DEPLOYMENT, "db-r1", False)],
    ids=lambda value: getattr(value, "name", None),
)
async def test_what_is_somebody_elses_is_not_taken_over(kind: Kind, name: str, stateful: bool) -> None:
    """It stays as it is, as long as the agent is there and after it; who made it is told, and what to do."""
    cluster = Cluster()
    theirs = await made_by_helm(cluster, kind, name)

    async def act(engine: KubernetesEngine) -> None:
        failures = await engine.act([ensure(stateful=stateful), Scale("db", "r1", 1)])
        said = (
            f"agents.db: the {kind.name} {name} in f is not ours (made by helm): give this fleet a namespace of its own"
        )
        assert failures[0].reason.startswith(said) and "give the agent another name" in failures[0].reason
        assert await engine.act([Remove("db")]) == ()

    await on(cluster, act)
    assert cluster.of(kind)[name] == theirs


async def test_a_service_that_takes_the_place_of_ours_stays_when_the_agent_goes() -> None:
    """Whoever made it after ours was removed."""
    cluster = Cluster()

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([ensure(stateful=True), Scale("db", "r1", 1)]) == ()
        removed(engine, cluster, SERVICE)
        await made_by_helm(cluster, SERVICE, "db")
        assert (await engine.observe()).agents["db"].lacking
        (failure,) = await engine.act([ensure(stateful=True)])
        assert "the Service db in f is not ours" in failure.reason
        assert await engine.act([Remove("db")]) == ()

    await on(cluster, act)
    assert list(cluster.of(SERVICE)) == ["db"] and not cluster.of(STATEFUL_SET)


def removed(engine: KubernetesEngine, cluster: Cluster, kind: Kind) -> None:
    """By somebody else, and the watch told of it."""
    cluster.of(kind).pop("db")
    engine._inventory.drop(kind, "db")  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("kind", [SERVICE, DISRUPTION_BUDGET], ids=lambda kind: kind.name)
async def test_what_was_removed_is_missed_and_made_again(kind: Kind) -> None:
    """No other count is needed for it."""
    cluster = Cluster()

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([ensure(stateful=True), Scale("db", "r1", 2)]) == ()
        assert not (await engine.observe()).agents["db"].lacking
        removed(engine, cluster, kind)
        assert (await engine.observe()).agents["db"].lacking
        assert await engine.act([ensure(stateful=True)]) == ()
        assert list(cluster.of(kind)) == ["db"] and not (await engine.observe()).agents["db"].lacking

    await on(cluster, act)


async def test_what_has_one_replica_needs_no_budget_and_more_do_whoever_scaled_it() -> None:
    """As an autoscaler does."""
    cluster = Cluster()

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([ensure(), Scale("db", "r1", 1)]) == ()
        assert not (await engine.observe()).agents["db"].lacking
        scaled = await cluster.get(DEPLOYMENT, "db-r1")
        scaled["spec"]["replicas"] = 3
        written = await cluster.replace(DEPLOYMENT, scaled)
        engine._inventory.put(DEPLOYMENT, written)  # pyright: ignore[reportPrivateUsage]
        assert (await engine.observe()).agents["db"].lacking
        assert await engine.act([ensure()]) == ()
        assert list(cluster.of(DISRUPTION_BUDGET)) == ["db"]

    await on(cluster, act)


async def test_a_budget_of_somebody_elses_stands_for_ours() -> None:
    """It is neither changed nor removed: a pod with two is never drained."""
    cluster = Cluster()
    theirs = await made_by_helm(cluster, DISRUPTION_BUDGET, "db")

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([ensure(), Scale("db", "r1", 2), ensure()]) == ()
        assert not (await engine.observe()).agents["db"].lacking
        assert await engine.act([Remove("db")]) == ()

    await on(cluster, act)
    assert cluster.of(DISRUPTION_BUDGET) == {"db": theirs}


async def test_a_budget_of_somebody_elses_that_comes_or_goes_is_seen() -> None:
    """One that came between the look and ours is not asked for again; once it is gone, ours is missed."""
    cluster = Cluster()

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([ensure(), Scale("db", "r1", 2)]) == ()
        removed(engine, cluster, DISRUPTION_BUDGET)
        assert (await engine.observe()).agents["db"].lacking
        await made_by_helm(cluster, DISRUPTION_BUDGET, "db")
        assert await engine.act([ensure()]) == ()
        assert not (await engine.observe()).agents["db"].lacking
        removed(engine, cluster, DISRUPTION_BUDGET)
        assert (await engine.observe()).agents["db"].lacking

    await on(cluster, act)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (AUTOSCALER, "maxReplicas", 100),
        (DISRUPTION_BUDGET, "maxUnavailable", 3),
        (SERVICE, "publishNotReadyAddresses", False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_what_was_changed_is_put_back(kind: Kind, key: str, value: object) -> None:
    """Once its revision is ensured, as by `up`; what is as it should be is not written."""
    cluster = Cluster()
    told = [ensure(stateful=True), Autoscale("db", "r1", RULES)]

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([told[0], Scale("db", "r1", 2), told[1]]) == ()
        made = await cluster.get(kind, "db")
        made["metadata"]["managedFields"] = [
            {"manager": "shoal", "fieldsV1": {"f:spec": {f"f:{each}": {} for each in made["spec"] if each != key}}},
            {"manager": "kubectl-edit", "fieldsV1": {"f:spec": {f"f:{key}": {}}}},
        ]
        made["spec"][key] = value
        engine._inventory.put(kind, await cluster.replace(kind, made))  # pyright: ignore[reportPrivateUsage]
        cluster.applied.clear()
        assert await engine.act(told) == ()
        assert cluster.applied == ["db"] and cluster.of(kind)["db"]["spec"][key] != value
        assert await engine.act(told) == ()
        assert cluster.applied == ["db"]

    await on(cluster, act)


async def test_another_port_reaches_the_service() -> None:
    """With the version that has it."""
    cluster = Cluster()

    async def act(engine: KubernetesEngine) -> None:
        assert await engine.act([ensure(stateful=True), Scale("db", "r1", 1)]) == ()
        made = await cluster.get(SERVICE, "db")
        key = json.dumps({"port": 5432, "protocol": "TCP"})
        made["metadata"]["managedFields"] = [
            {"manager": "shoal", "fieldsV1": {"f:spec": {"f:ports": {f"k:{key}": {".": {}, "f:port": {}}}}}}
        ]
        engine._inventory.put(SERVICE, await cluster.replace(SERVICE, made))  # pyright: ignore[reportPrivateUsage]
        newer = EnsureRevision("db", "r2", ensure(stateful=True, port=5433).template, {})
        assert await engine.act([newer, Scale("db", "r2", 1)]) == ()
        assert [each["port"] for each in cluster.of(SERVICE)["db"]["spec"]["ports"]] == [5433]

    await on(cluster, act)
