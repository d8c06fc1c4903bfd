"""What of Shoal's own a fleet has in the cluster: made, kept, told where it is, and taken away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shoal.core.wiring import Wiring
from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import POD, SECRET, SERVICE, STATEFUL_SET
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.platform import KubernetesPlatform
from shoal.spec.model import Fleet
from tests.fake_kubernetes import FakeKubernetes
from tests.simulation.virtual_time import run_virtually

Object = dict[str, Any]
QUEUES = {"agents": {"work": {"image": "acme/web:1", "queue": "tasks"}}, "queues": {"tasks": {}}}


def fleet(**more: Any) -> Fleet:
    agents = {"web": {"image": "acme/web:1", "port": 80}}
    return Fleet.model_validate({"fleet": "shop", "engine": "kubernetes", "agents": agents, **more})


class Cluster(FakeKubernetes):
    """One that gives every Service what it needs to be reached, and runs every StatefulSet with `ready` pods."""

    ready = 1

    async def get(self, kind: Kind, name: str) -> Object:
        found = await super().get(kind, name)
        return {**found, "status": {"readyReplicas": self.ready}} if kind in (SERVICE, STATEFUL_SET) else found


def platform(cluster: FakeKubernetes) -> KubernetesPlatform:
    return KubernetesPlatform(cluster, "shop", "shoal:1", b"seed", lambda kind, name: name in cluster.of(kind))


async def test_the_broker_goes_once_all_is_settled_without_a_queue() -> None:
    """Not before: who drains still needs it. What is in force by then is what counts."""
    cluster = Cluster()
    made = platform(cluster)
    with_queues, without = fleet(**QUEUES), fleet()
    assert (await made.ensure(with_queues)).broker_admin_url is not None
    await made.prune(with_queues)
    wiring: Wiring = await made.ensure(without)
    assert wiring.broker_admin_url is None and "shoal-broker" in cluster.of(STATEFUL_SET)
    await made.prune(with_queues)  # of a generation that is not in force any more
    assert "shoal-broker" in cluster.of(STATEFUL_SET)
    await made.prune(without)
    assert "shoal-broker" not in {*cluster.of(STATEFUL_SET), *cluster.of(SERVICE)} and not cluster.of(SECRET)
    assert {"shoal-gateway", "shoal-calls"} <= set(cluster.of(SERVICE))


async def test_what_somebody_removes_is_made_again() -> None:
    """By the controller, within its look at the platform; else a look costs no call."""
    cluster = Cluster()
    made, spec = platform(cluster), fleet()
    await made.ensure(spec)
    written = cluster.writes
    await made.ensure(spec)
    assert cluster.writes == written
    await cluster.delete(SERVICE, "shoal-gateway")
    await made.ensure(spec)
    assert "shoal-gateway" in cluster.of(SERVICE) and cluster.writes == written + 1


def test_a_configuration_that_somebody_removes_is_made_again() -> None:
    """Secrets are not watched: it is looked for twice a minute."""

    async def run() -> None:
        cluster = Cluster()
        made, spec = platform(cluster), fleet(**QUEUES)
        await made.ensure(spec)
        (name,) = cluster.of(SECRET)
        await cluster.delete(SECRET, name)
        await made.ensure(spec)
        assert not cluster.of(SECRET)
        await asyncio.sleep(30.0)
        await made.ensure(spec)
        assert list(cluster.of(SECRET)) == [name]

    run_virtually(run())


@pytest.mark.parametrize("asks", [{"storage": "2Gi"}, {"storage_class": "fast"}])
async def test_a_broker_keeps_what_its_claim_was_made_from(asks: Object) -> None:
    """Nobody can change that; with all else of it that changes it is applied as it was."""
    cluster = Cluster()
    made = platform(cluster)
    await made.ensure(fleet(**QUEUES))
    first = cluster.of(STATEFUL_SET)["shoal-broker"]
    written = cluster.writes
    await made.ensure(fleet(**QUEUES, kubernetes=asks))
    assert cluster.writes == written and cluster.of(STATEFUL_SET)["shoal-broker"] == first
    agents = {**QUEUES["agents"], "more": {"image": "acme/more:1", "queue": "tasks"}}
    await made.ensure(fleet(**{**QUEUES, "agents": agents}, kubernetes=asks))
    changed = cluster.of(STATEFUL_SET)["shoal-broker"]
    assert changed != first and changed["spec"]["volumeClaimTemplates"] == first["spec"]["volumeClaimTemplates"]


def test_who_takes_over_does_not_wait_for_a_broker_that_is_as_it_was_told_to_be() -> None:
    """Its node may be lost. One that was just made, or changed, is waited for."""

    async def run() -> list[float]:
        cluster, spec = Cluster(), fleet(**QUEUES, kubernetes={"service": "ClusterIP"})
        cluster.ready = 0
        took: list[float] = []
        for _ in range(2):
            began = asyncio.get_running_loop().time()
            await platform(cluster).ensure(spec)
            took.append(asyncio.get_running_loop().time() - began)
        return took

    made, taken_over = run_virtually(run())
    assert made >= 10 and taken_over == 0


@pytest.mark.parametrize(
    ("ingress", "url"),
    [
        ([{"ip": "203.0.113.7"}], "http://203.0.113.7:80"),
        ([{"hostname": "lb.example"}, {"ip": "203.0.113.7"}], "http://lb.example:80"),
        ([], "http://10.0.0.1:30080"),  # not given yet: by a node that has a gateway
    ],
)
async def test_where_a_load_balancer_is(ingress: list[Object], url: str) -> None:
    class Given(Cluster):
        async def get(self, kind: Kind, name: str) -> Object:
            found = await super().get(kind, name)
            if kind == SERVICE:
                found["status"] = {"loadBalancer": {"ingress": ingress}}
                found["spec"]["ports"][0]["nodePort"] = 30080
            return found

    cluster = Given()
    about = {"name": "gateway", "labels": fleet_labels("shop", Role.GATEWAY)}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "status": {"hostIP": "10.0.0.1"}}
    await cluster.create(POD, pod)
    wiring = await platform(cluster).ensure(fleet(kubernetes={"service": "LoadBalancer"}))
    assert wiring.public_url == url
