"""The autoscaler that is rendered, as values; and who has a count, from what the API server notes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_kubernetes_acts import Cluster, on

from shoal.core.action import ActionFailure, Autoscale, Scale
from shoal.core.observed import Autoscaler, CountOwner
from shoal.engines.kubernetes import names
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
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.ownership import read_autoscaler, read_owner
from shoal.engines.kubernetes.read import Parts, read_agent
from shoal.engines.kubernetes.render import render_budget, render_governing
from shoal.engines.kubernetes.render_autoscaler import render_autoscaler
from shoal.spec.scaling import Scale as Rules

Object = dict[str, Any]


def rendered(**scale: Any) -> Object:
    rules = Rules.model_validate({"min": 2, "max": 8, "target": {"cpu": "70%"}, **scale})
    return render_autoscaler("shop", "web", "r1", rules, ("Deployment", "web-r1"))


def percent(resource: str, value: int) -> Object:
    target = {"type": "Utilization", "averageUtilization": value}
    return {
        "type": "ContainerResource",
        "containerResource": {"name": resource, "container": "agent", "target": target},
    }


def test_bounds_and_targets() -> None:
    """Of the agent's own container; without a behaviour of its own the cluster's, which is Shoal's too."""
    made = rendered(target={"cpu": "70%", "memory": "80%"})
    assert (made["apiVersion"], made["kind"]) == ("autoscaling/v2", "HorizontalPodAutoscaler")
    assert made["metadata"]["labels"] == fleet_labels("shop", Role.AUTOSCALER, agent="web", revision="r1")
    assert made["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-r1"},
        "minReplicas": 2,
        "maxReplicas": 8,
        "metrics": [percent("cpu", 70), percent("memory", 80)],
    }


def test_behaviour() -> None:
    """The direction that the file says something of, in whole seconds."""
    behavior = {
        "scale_up": {
            "stabilization_window": "2.5s",
            "select_policy": "min",
            "policies": [
                {"type": "pods", "value": 2, "period": "1m"},
                {"type": "percent", "value": 50, "period": "500ms"},
            ],
        }
    }
    assert rendered(behavior=behavior)["spec"]["behavior"] == {
        "scaleUp": {
            "selectPolicy": "Min",
            "stabilizationWindowSeconds": 3,
            "policies": [
                {"type": "Pods", "value": 2, "periodSeconds": 60},
                {"type": "Percent", "value": 50, "periodSeconds": 1},
            ],
        }
    }
    assert rendered(behavior={"scale_down": {"select_policy": "disabled"}})["spec"]["behavior"] == {
        "scaleDown": {"selectPolicy": "Disabled"}
    }


def deployment(*managers: str, replicas: int = 2) -> Object:
    fields = {"f:spec": {"f:replicas": {}}}
    noted = [{"manager": manager, "fieldsV1": fields} for manager in managers]
    noted.append({"manager": "helm", "fieldsV1": {"f:metadata": {"f:labels": {}}}})
    labels = fleet_labels("shop", Role.REVISION, agent="web", revision="r1")
    return {"metadata": {"name": "web-r1", "labels": labels, "managedFields": noted}, "spec": {"replicas": replicas}}


def autoscaler(name: str, *, ours: bool = False, **status: str) -> Object:
    labels = fleet_labels("shop", Role.AUTOSCALER, agent="web", revision="r1") if ours else {}
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web-r1"}}
    condition = {"type": "ScalingActive", "status": "False", "message": "no metrics", **status}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"conditions": [condition] if status else []},
    }


@pytest.mark.parametrize(
    ("managers", "owner"),
    [
        ((), CountOwner("somebody")),  # the API server notes nobody who scales to zero, and so on from there
        (("shoal",), None),
        (("kubectl",), CountOwner("kubectl")),
        (("kubectl", "shoal"), None),  # Shoal set the same
        (("kube-controller-manager",), None),  # an autoscaler that is gone
    ],
)
def test_who_set_it_last(managers: tuple[str, ...], owner: CountOwner | None) -> None:
    """Who has other fields does not matter."""
    assert read_owner(deployment(*managers), []) == owner


def test_of_an_object_of_which_nothing_is_noted_nothing_is_said() -> None:
    """Some clusters may not note it."""
    bare = deployment()
    del bare["metadata"]["managedFields"]
    assert read_owner(bare, []) is None


def test_an_autoscaler_goes_before_who_set_it_last() -> None:
    """One of somebody else's before ours; none of them at zero, where they do nothing."""
    ours, theirs = autoscaler("web", ours=True), autoscaler("theirs")
    assert read_owner(deployment("kubectl"), [ours]) is None
    assert read_owner(deployment("shoal"), [ours, theirs]) == CountOwner("HPA theirs", lasting=True)
    assert read_owner(deployment("kubectl", replicas=0), [ours, theirs]) == CountOwner("kubectl")


def test_who_made_an_autoscaler_is_named() -> None:
    """As KEDA makes one from what people write."""
    made = autoscaler("keda-hpa-web")
    made["metadata"]["ownerReferences"] = [{"kind": "ScaledObject", "name": "web", "controller": True}]
    owner = read_owner(deployment("shoal"), [made])
    assert owner == CountOwner("ScaledObject web (by its HPA)", lasting=True)


def test_an_autoscaler_that_cant_tell_says_why() -> None:
    """In the words of its condition; doing nothing at zero is no trouble."""
    failed = read_autoscaler([autoscaler("web", ours=True, reason="FailedGetContainerResourceMetric")])
    assert failed == Autoscaler(
        "r1", CountOwner("HPA web (autoscaling/v2)", True, "FailedGetContainerResourceMetric: no metrics")
    )
    resting = read_autoscaler([autoscaler("web", ours=True, reason="ScalingDisabled")])
    assert resting is not None and resting.owner.trouble == ""


def test_an_agent_with_its_owners() -> None:
    """One that aims elsewhere is nobody's concern."""
    elsewhere = autoscaler("other")
    elsewhere["spec"]["scaleTargetRef"]["name"] = "web-r2"
    found = read_agent("web", Parts(deployments=[deployment("kubectl")], autoscalers=[elsewhere]))
    assert (found.owners, found.autoscaler) == ({"r1": CountOwner("kubectl")}, None)


async def test_what_is_not_ours_is_not_taken() -> None:
    """An autoscaler of the agent's name that aims at something else."""
    cluster = Cluster()
    await cluster.add(DEPLOYMENT, "web-r1", Role.REVISION, spec={"replicas": 2})
    theirs: Object = autoscaler("web") | {"kind": AUTOSCALER.name, "apiVersion": AUTOSCALER.api_version}
    theirs["spec"]["scaleTargetRef"]["name"] = "other"
    await cluster.create(AUTOSCALER, theirs)

    async def act(engine: KubernetesEngine) -> None:
        (failure,) = await engine.act([Autoscale("web", "r1", Rules())])
        assert "the HorizontalPodAutoscaler web in f is not ours" in failure.reason
        assert await engine.act([Autoscale("web")]) == ()

    await on(cluster, act)
    assert "web" in cluster.of(AUTOSCALER)


async def test_an_autoscaler_that_comes_aims_and_goes() -> None:
    """Each is a look at the agent that it concerns."""
    cluster = Cluster()
    await cluster.add(DEPLOYMENT, "web-r1", Role.REVISION, spec={"replicas": 2})

    async def act(engine: KubernetesEngine) -> None:
        inventory = engine._inventory  # pyright: ignore[reportPrivateUsage]
        made: Object = autoscaler("theirs") | {"kind": AUTOSCALER.name, "apiVersion": AUTOSCALER.api_version}
        inventory.put(AUTOSCALER, await cluster.create(AUTOSCALER, made))
        assert (await engine.observe()).agents["web"].owners == {"r1": CountOwner("HPA theirs", lasting=True)}
        for name, owned in (("other", False), ("web-r1", True)):
            aimed = await cluster.get(AUTOSCALER, "theirs")
            aimed["spec"]["scaleTargetRef"]["name"] = name
            inventory.put(AUTOSCALER, await cluster.replace(AUTOSCALER, aimed))
            assert bool((await engine.observe()).agents["web"].owners) is owned
        inventory.drop(AUTOSCALER, "theirs")
        assert (await engine.observe()).agents["web"].owners == {}

    await on(cluster, act)


async def test_a_count_that_is_taken_is_applied_though_it_is_the_same() -> None:
    """By which the API server notes it as Shoal's; one that is Shoal's and right is not written."""
    cluster = Cluster()
    await cluster.add(DEPLOYMENT, "web-r1", Role.REVISION, spec={"replicas": 2})

    async def act(engine: KubernetesEngine) -> None:
        version = cluster.of(DEPLOYMENT)["web-r1"]["metadata"]["resourceVersion"]
        assert await engine.act([Scale("web", "r1", 2)]) == ()
        assert cluster.of(DEPLOYMENT)["web-r1"]["metadata"]["resourceVersion"] == version
        item = await cluster.get(DEPLOYMENT, "web-r1")
        item["metadata"]["managedFields"] = deployment("kubectl")["metadata"]["managedFields"]
        written = await cluster.replace(DEPLOYMENT, item)
        engine._inventory.put(DEPLOYMENT, written)  # pyright: ignore[reportPrivateUsage]
        assert await engine.act([Scale("web", "r1", 2, taken_from=CountOwner("kubectl"))]) == ()
        assert cluster.of(DEPLOYMENT)["web-r1"]["metadata"]["resourceVersion"] != written["metadata"]["resourceVersion"]
        assert (await engine.observe()).agents["web"].owners == {}

    await on(cluster, act)


def scaled_by_hand(item: Object, count: int) -> None:
    """As `kubectl scale` does it, which leaves no note of who it was where that is to zero."""
    item["spec"]["replicas"] = count
    noted = [{"manager": "kubectl", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]
    item["metadata"]["managedFields"] = [{"manager": "shoal", "fieldsV1": {"f:spec": {}}}, *(noted if count else [])]


async def scalable(kind: Kind) -> Cluster:
    """One with an agent of two replicas, stateful or not, whose count is Shoal's."""
    cluster = Cluster()
    pod: Object = {"metadata": {"labels": {names.REVISION: "r1"}}, "spec": {"containers": [{"name": "agent"}]}}
    role, name = (Role.STATEFUL, "web") if kind == STATEFUL_SET else (Role.REVISION, "web-r1")
    await cluster.add(kind, name, role, spec={"replicas": 2, "template": pod})
    cluster.of(kind)[name]["metadata"]["managedFields"] = deployment("shoal")["metadata"]["managedFields"]
    await cluster.create(DISRUPTION_BUDGET, render_budget("shop", "web"))
    if kind == STATEFUL_SET:
        await cluster.create(SERVICE, render_governing("shop", "web", None))
        kept = json.dumps({"role": role.value, "pod": pod, "claims": []})
        await cluster.add(CONFIG_MAP, "web-r1", Role.TEMPLATE, data={"template.json": kept})
    return cluster


@pytest.mark.parametrize("by_hand", [5, 0])
@pytest.mark.parametrize("kind", [DEPLOYMENT, STATEFUL_SET], ids=lambda kind: kind.name)
async def test_a_count_that_somebody_sets_meanwhile_stays(kind: Kind, by_hand: int) -> None:
    """It is no failure of the agent's: the next look shows it, and then that one has it."""
    cluster = await scalable(kind)

    def at_the_last_moment() -> None:
        cluster.before_write = lambda: None
        (item,) = cluster.of(kind).values()
        scaled_by_hand(item, by_hand)
        cluster.touch(item)

    async def act(engine: KubernetesEngine) -> None:
        cluster.before_write = at_the_last_moment
        scale = Scale("web", "r1", 3)
        assert await engine.act([scale]) == (ActionFailure(scale, ""),)
        seen = (await engine.observe()).agents["web"]
        owner = CountOwner("kubectl" if by_hand else "somebody")
        assert (seen.counts, seen.owners) == ({"r1": by_hand}, {"r1": owner})
        assert await engine.act([scale]) == (ActionFailure(scale, ""),), "as long as it was decided before that look"
        assert await engine.act([Scale("web", "r1", 3, taken_from=owner)]) == ()

    await on(cluster, act)
    (item,) = cluster.of(kind).values()
    assert item["spec"]["replicas"] == 3


@pytest.mark.parametrize("kind", [DEPLOYMENT, STATEFUL_SET], ids=lambda kind: kind.name)
async def test_a_status_that_changes_meanwhile_keeps_no_count_from_being_set(kind: Kind) -> None:
    """Which it does all the time; one that changes at each try is left for the next look."""
    cluster = await scalable(kind)
    changes = 2

    def status() -> None:
        nonlocal changes
        changes -= 1
        (item,) = cluster.of(kind).values()
        if changes >= 0:
            cluster.touch(item)

    async def act(engine: KubernetesEngine) -> None:
        nonlocal changes
        cluster.before_write = status
        assert await engine.act([Scale("web", "r1", 3)]) == ()
        changes = 1000
        again = Scale("web", "r1", 4)
        assert await engine.act([again]) == (ActionFailure(again, ""),)

    await on(cluster, act)
    (item,) = cluster.of(kind).values()
    assert item["spec"]["replicas"] == 3


async def test_what_is_removed_meanwhile_gets_no_count() -> None:
    """It is not made anew by that: it is nothing but a count."""
    cluster = await scalable(DEPLOYMENT)

    async def act(engine: KubernetesEngine) -> None:
        cluster.before_write = cluster.of(DEPLOYMENT).clear
        scale = Scale("web", "r1", 3)
        assert await engine.act([scale]) == (ActionFailure(scale, ""),)
        assert (await engine.observe()).agents == {}

    await on(cluster, act)
    assert not cluster.of(DEPLOYMENT)


def test_who_made_it_does_not_own_its_count() -> None:
    """As by applying what `shoal render` wrote, until he sets the count alone."""
    item = deployment()
    made = {"f:spec": {"f:replicas": {}, "f:template": {}}}
    item["metadata"]["managedFields"].append({"manager": "kubectl", "fieldsV1": made})
    assert read_owner(item, ()) is None
    scaled = {"manager": "kubectl", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    item["metadata"]["managedFields"].append(scaled)
    assert read_owner(item, ()) == CountOwner("kubectl")
