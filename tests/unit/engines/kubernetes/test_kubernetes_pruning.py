"""What is taken away that a fleet has no use for any more, and what is not."""

from __future__ import annotations

from typing import Any

from shoal.engines.kubernetes.api.kinds import NETWORK_POLICY, POD, SECRET
from shoal.engines.kubernetes.install import install
from shoal.engines.kubernetes.names import Role, fleet_labels
from shoal.engines.kubernetes.own_keys import Keys
from shoal.engines.kubernetes.pruning import prune_pull, secrets_of
from shoal.engines.kubernetes.render_own import Own
from shoal.engines.kubernetes.render_pod import USES_OUTSIDE
from shoal.pki import Authority
from shoal.spec.model import Fleet
from tests.fake_kubernetes import FakeKubernetes

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
