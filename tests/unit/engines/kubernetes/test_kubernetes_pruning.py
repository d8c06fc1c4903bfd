"""What is taken away that a fleet has no use for any more, and what is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shoal.core.wiring import Wiring
from shoal.engines.kubernetes.api import Kind
from shoal.engines.kubernetes.api.kinds import NETWORK_POLICY, POD, SECRET, SERVICE, STATEFUL_SET
from shoal.engines.kubernetes.install import install
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.own_keys import Keys
from shoal.engines.kubernetes.platform import KubernetesPlatform
from shoal.engines.kubernetes.pruning import prune_pull, secrets_of
from shoal.engines.kubernetes.render_own import Own
from shoal.engines.kubernetes.render_pod import USES_OUTSIDE
from shoal.pki import Authority
from shoal.spec.model import Fleet
from tests.fake_kubernetes import FakeKubernetes
from tests.simulation.virtual_time import run_virtually

Object = dict[str, Any]


def fleet(**more: Any) -> Fleet:
    agents = {"web": {"image": "acme/web:1", "port": 80}}
    return Fleet.model_validate({"fleet": "shop", "engine": "kubernetes", "agents": agents, **more})


QUEUES = {"agents": {"work": {"image": "acme/web:1", "queue": "tasks"}}, "queues": {"tasks": {}}}
OUTSIDE = {
    **QUEUES,
    "brokers": {"main": {"type": "rabbitmq", "url": "amqp://rabbit", "management_url": "http://rabbit"}},
}
OUTSIDE["queues"] = {"tasks": {"broker": "main"}}

AUTHORITY = Authority.create("shop", 0.0)
KEYS = Keys(AUTHORITY.certificate_pem.encode(), AUTHORITY.key_pem.encode())


def own(spec: Fleet) -> Own:
    return Own("shop", "f", "shoal:1", spec.kubernetes)


def secret(name: str, role: Role, **labels: str) -> Object:
    about = {"name": name, "labels": fleet_labels("shop", role, **labels)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": {}}


async def test_the_password_for_images_goes_once_nothing_names_it() -> None:
    """And no registry of the file asks for one."""
    cluster = FakeKubernetes()
    await cluster.create(SECRET, secret("shoal-pull", Role.CONTROLLER))
    await prune_pull(cluster, fleet(registries={"ghcr.io": {"secret": "PULL"}}), ())
    await prune_pull(cluster, fleet(), {"shoal-pull"})
    assert "shoal-pull" in cluster.of(SECRET)
    await prune_pull(cluster, fleet(), ())
    assert "shoal-pull" not in cluster.of(SECRET)


def test_what_a_pod_needs_to_start_again() -> None:
    """Passwords of images, files, variables."""
    pod = {
        "imagePullSecrets": [{"name": "a"}],
        "volumes": [{"secret": {"secretName": "b"}}, {"projected": {"sources": [{"secret": {"name": "c"}}, {}]}}, {}],
        "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "d"}}}, {"value": "x"}]}, {}],
    }
    assert list(secrets_of(pod)) == ["a", "b", "c", "d"]


async def test_a_policy_goes_with_the_last_pod_that_it_lets_through() -> None:
    """Who still works on what was in a broker outside reaches it."""
    cluster = FakeKubernetes()
    before, after = fleet(**OUTSIDE), fleet()
    await install(cluster, own(before), before, None, {})
    assert "shoal-uses-outside" in cluster.of(NETWORK_POLICY)
    drains: Object = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "work-1", "labels": {**fleet_labels("shop", Role.REVISION), USES_OUTSIDE: "1"}},
    }  # fmt: skip
    await cluster.create(POD, drains)
    await install(cluster, own(after), after, None, {})
    assert "shoal-uses-outside" in cluster.of(NETWORK_POLICY)
    await cluster.delete(POD, "work-1")
    await install(cluster, own(after), after, None, {})
    assert "shoal-uses-outside" not in cluster.of(NETWORK_POLICY) and "shoal-default" in cluster.of(NETWORK_POLICY)


async def test_who_waits_for_keys_is_made_anew() -> None:
    """Applied before there were some, by `shoal render`; whoever has started by now is not."""
    cluster, spec = FakeKubernetes(), fleet()
    for name, role, phase in (
        ("waits", Role.CONTROLLER, "Pending"), ("too", Role.GATEWAY, "Pending"),
        ("runs", Role.GATEWAY, "Running"), ("other", Role.REVISION, "Pending"),
    ):  # fmt: skip
        about = {"name": name, "labels": fleet_labels("shop", role)}
        await cluster.create(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": about, "status": {"phase": phase}})
    await install(cluster, own(spec), spec, None, {})
    assert len(cluster.of(POD)) == 4
    await install(cluster, own(spec), spec, KEYS, {})
    assert list(cluster.of(POD)) == ["runs", "other"]


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
