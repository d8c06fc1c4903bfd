"""What `shoal down` takes out of a namespace, and what it leaves there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import (
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    EVENT,
    NAMESPACE,
    NETWORK_POLICY,
    REPLICA_SET,
    ROLE,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
)
from shoal.engines.kubernetes.api.refusals import refusal
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.removal import remove_all
from shoal.errors import EngineError, EngineUnavailable
from tests.fake_kubernetes import NO_LABELS, FakeKubernetes

INGRESS = Kind("networking.k8s.io", "v1", "Ingress", "ingresses")
SCALED = Kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
METRICS = Kind("metrics.k8s.io", "v1beta1", "PodMetrics", "pods")


class Cluster(FakeKubernetes):
    """One of which some may not be done: (verb, kind's name)."""

    def __init__(self, forbidden: Collection[tuple[str, str]] = ()) -> None:
        super().__init__()
        self.forbidden = forbidden
        self.gone_at: tuple[str, str] | None = None
        self.served += [INGRESS, SCALED, METRICS, REPLICA_SET]

    def check(self, verb: str, kind: Kind) -> None:
        if (verb, kind.name) == self.gone_at:
            raise EngineUnavailable("Kubernetes at fake can't be reached")
        if (verb, kind.name) in self.forbidden:
            said = f'{kind.plural} is forbidden: User "me" cannot {verb} resource "{kind.plural}" in API group ""'
            raise refusal("fake://", f"{verb} {kind.name}", 403, {"reason": "Forbidden", "message": said})

    async def get(self, kind: Kind, name: str) -> dict[str, Any]:
        self.check("get", kind)
        return await super().get(kind, name)

    async def list(
        self, kind: Kind, labels: Mapping[str, str] = NO_LABELS, *, fields: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        self.check("list", kind)
        return await super().list(kind, labels, fields=fields)

    async def list_metadata(self, kind: Kind, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        self.check("list", kind)
        return await super().list_metadata(kind, labels)

    async def delete(self, kind: Kind, name: str, *, grace_s: int | None = None, wait: bool = False) -> bool:
        self.check("delete", kind)
        return await super().delete(kind, name, grace_s=grace_s, wait=wait)


async def add(cluster: FakeKubernetes, kind: Kind, name: str, **about: Any) -> None:
    await cluster.create(kind, {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name, **about}})


async def cluster_of(fleet: str | None, *, forbidden: Collection[tuple[str, str]] = ()) -> Cluster:
    """A namespace that was made for this fleet, or for none, with what every one has and what is left of ours."""
    made = Cluster(forbidden)
    await add(made, NAMESPACE, "f", labels=fleet_labels(fleet, Role.FLEET) if fleet else {})
    await add(made, SERVICE_ACCOUNT, "default")
    await add(made, CONFIG_MAP, "kube-root-ca.crt")
    await add(made, EVENT, "web-1.17")
    await add(made, METRICS, "web-1")
    await add(made, SECRET, "ours", labels=fleet_labels("shop", Role.SECRET))
    ours = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "1"}
    await add(made, REPLICA_SET, "web-abc", ownerReferences=[ours])  # the cluster has not come to it yet
    return made


@pytest.mark.parametrize("labelled", [True, False])
async def test_the_namespace_goes_if_it_was_made_for_the_fleet(labelled: bool) -> None:
    """And nobody else has anything there; what every namespace has is nobody's."""
    cluster = await cluster_of("shop" if labelled else None)
    assert await remove_all(cluster, "shop", data=True) == ""
    assert bool(cluster.of(NAMESPACE)) is not labelled and "ours" not in cluster.of(SECRET)


@pytest.mark.parametrize("kind", [INGRESS, CRON_JOB, CONFIG_MAP, SCALED, DEPLOYMENT])
async def test_what_is_of_somebody_else_keeps_the_namespace(kind: Kind) -> None:
    """Of whatever kind, one of an add-on too; it is told."""
    cluster = await cluster_of("shop")
    await add(cluster, kind, "theirs")
    told = await remove_all(cluster, "shop", data=True)
    assert told == f"the namespace f stays: {kind.name} theirs is not this fleet's"
    assert "theirs" in cluster.of(kind) and cluster.of(NAMESPACE) and "ours" not in cluster.of(SECRET)


async def test_what_another_one_owns_from_outside_the_namespace() -> None:
    """It does not go with anything that is in there. Of many some are named."""
    cluster = await cluster_of("shop")
    owner = {"apiVersion": "example.com/v1", "kind": "Tenant", "name": "t", "uid": "2"}
    for number in range(7):
        await add(cluster, CONFIG_MAP, f"c{number}", ownerReferences=[owner])
    assert str(await remove_all(cluster, "shop", data=True)).endswith("ConfigMap c4 and 2 more are not this fleet's")


@pytest.mark.parametrize(
    ("forbidden", "said"),
    [
        (("get", "Namespace"), "cannot get resource"),
        (("delete", "Namespace"), "let who may do it run `kubectl delete namespace f`"),
        (("list", "Ingress"), "not everything there can be seen: ingresses is forbidden"),
    ],
)
async def test_who_may_not_do_it_leaves_the_namespace(forbidden: tuple[str, str], said: str) -> None:
    """All else is gone, and it is told."""
    cluster = await cluster_of("shop", forbidden=[forbidden])
    told = await remove_all(cluster, "shop", data=True)
    assert told.startswith("the namespace f stays: ") and said in told
    assert "f" in cluster.of(NAMESPACE) and "ours" not in cluster.of(SECRET)


async def test_discovery_that_does_not_say_all() -> None:
    """What stands before an API server may give its older form: nothing is known of what is there."""

    class Old(Cluster):
        async def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
            return {"kind": "APIGroupList", "groups": []}

    cluster = Old()
    await add(cluster, NAMESPACE, "f", labels=fleet_labels("shop", Role.FLEET))
    told = await remove_all(cluster, "shop", data=True)
    assert "which kinds there are: /api answers APIGroupList, in place of all kinds" in told and cluster.of(NAMESPACE)


async def test_without_data_it_stays_in_any_case() -> None:
    """With what the fleet keeps in it."""
    cluster = await cluster_of("shop")
    assert await remove_all(cluster, "shop", data=False) == ""
    assert cluster.of(NAMESPACE) and "ours" in cluster.of(SECRET)


async def cluster_that_runs(**more: Any) -> Cluster:
    """A fleet of one agent, with what is around it."""
    made = await cluster_of("shop", **more)
    for kind, name in (
        (DEPLOYMENT, "shoal-controller"),
        (DEPLOYMENT, "web-r1"),
        (SERVICE, "web"),
        (NETWORK_POLICY, "shoal-agents"),
        (ROLE, "shoal"),
    ):
        await add(made, kind, name, labels=fleet_labels("shop", Role.CONTROLLER))
    return made


@pytest.mark.parametrize("verb", ["list", "delete"])
async def test_what_may_not_be_removed_is_told_and_the_rest_goes(verb: str) -> None:
    """With what is gone, what stays, and the command that goes on from there with that right; which it does."""
    cluster = await cluster_that_runs(forbidden=[(verb, "Role"), (verb, "RoleBinding")])
    with pytest.raises(EngineError) as told:
        await remove_all(cluster, "shop", data=True)
    *refused, rest = str(told.value).splitlines()
    stays = "rolebindings, roles" if verb == "list" else "roles"
    assert f'cannot {verb} resource "roles"' in "\n".join(refused)
    assert rest == (
        "Gone: the controller, deployments (1), services (1), networkpolicies (1), secrets (1). What stays, as far as "
        f"there is any: {stays}, the namespace f; `shoal down --volumes` again goes on from there once that is out of "
        "the way"
    )
    assert list(cluster.of(ROLE)) == ["shoal"] and cluster.of(NAMESPACE)
    cluster.forbidden = ()
    assert await remove_all(cluster, "shop", data=True) == ""
    assert not cluster.of(ROLE) and not cluster.of(NAMESPACE)


async def test_what_is_around_agents_stays_with_them() -> None:
    """Their network policies, say, where they may not be removed themselves."""
    cluster = await cluster_that_runs(forbidden=[("delete", "StatefulSet"), ("list", "StatefulSet")])
    with pytest.raises(EngineError, match=r"Gone: the controller, deployments \(1\). What stays, .*networkpolicies"):
        await remove_all(cluster, "shop", data=False)
    assert cluster.of(NETWORK_POLICY) and cluster.of(SERVICE) and not cluster.of(DEPLOYMENT)


async def test_who_may_not_remove_the_controller_removes_nothing() -> None:
    """It would make again what goes."""
    cluster = await cluster_that_runs(forbidden=[("delete", "Deployment")])
    with pytest.raises(EngineError, match=r"Nothing was removed. What stays, .*; `shoal down` again goes on"):
        await remove_all(cluster, "shop", data=False)
    assert cluster.of(DEPLOYMENT) and cluster.of(ROLE)


async def test_what_was_not_there_is_not_told_as_gone() -> None:
    """The controller of a fleet of which nothing runs."""
    cluster = await cluster_of("shop", forbidden=[("list", "Role")])
    with pytest.raises(EngineError, match=r"Nothing was removed\. What stays, as far as there is any: roles; `shoal"):
        await remove_all(cluster, "shop", data=False)


async def test_an_api_that_goes_away_half_way() -> None:
    """What is gone by then is told."""
    cluster = await cluster_that_runs()
    cluster.gone_at = ("list", "NetworkPolicy")
    with pytest.raises(EngineUnavailable) as told:
        await remove_all(cluster, "shop", data=False)
    assert "can't be reached\nGone: the controller, deployments (1), services (1). What stays" in str(told.value)
    assert cluster.of(NETWORK_POLICY) and not cluster.of(SERVICE)
