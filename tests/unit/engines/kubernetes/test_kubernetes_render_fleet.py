"""A whole fleet as objects: each thing that `up` and the controller make, once, in an order that can be applied."""

from __future__ import annotations

import json
from typing import Any

from shoal.core.revision import revision_of, template_of
from shoal.engines.kubernetes.api.kinds import KINDS
from shoal.engines.kubernetes.names import CONTENT
from shoal.engines.kubernetes.pruning import secrets_of
from shoal.engines.kubernetes.render_fleet import RenderedFleet, render_fleet, render_installed
from shoal.engines.kubernetes.render_own import Own, noted, render_gateway
from shoal.spec.model import Fleet

Object = dict[str, Any]
DOCUMENT: Object = {
    "fleet": "shop",
    "engine": "kubernetes",
    "kubernetes": {"image": "ghcr.io/acme/shoal:1", "storage": "1Gi"},
    "queues": {"tasks": {}},
    "registries": {"ghcr.io": {"secret": "PULL"}},
    "agents": {
        "web": {"image": "acme/web", "port": 80, "scale": {"min": 2, "max": 6, "target": {"concurrency": 5}}},
        "sleepy": {"image": "acme/web", "port": 80, "scale": {"min": 0, "max": 6, "target": {"concurrency": 5}}},
        "keyed": {"image": "acme/web", "port": 80, "secrets": [{"name": "API_KEY", "as": "env"}, "cert.pem"]},
        "stock": {"image": "acme/web", "port": 81, "stateful": True, "volumes": ["stock:/data"], "scale": 3},
        "work": {"image": "acme/web", "command": "work", "queue": "tasks", "volumes": ["models:/m"]},
        "fit": {"image": "acme/web", "command": "fit", "schedule": "0 2 * * *", "volumes": ["models:/m"]},
    },
}
FLEET = Fleet.model_validate(DOCUMENT)


def rendered() -> RenderedFleet:
    return render_fleet(FLEET, "prod")


def names_of(kind: str) -> list[str]:
    return [item["metadata"]["name"] for item in rendered().objects if item["kind"] == kind]


def named(kind: str, name: str) -> Object:
    (found,) = [item for item in rendered().objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def revision(name: str) -> str:
    return revision_of(template_of(FLEET, name, {}))


def test_all_of_it_is_there_once() -> None:
    """By kind; a volume of two agents is one claim, and jobs have what their runs are made from."""
    kinds = [item["kind"] for item in rendered().objects]
    assert kinds == sorted(kinds, key=list(KINDS).index) and kinds[0] == "Namespace"
    assert "Secret" not in kinds
    templates = {f"{name}-{revision(name)}" for name in ("web", "sleepy", "work")}
    deployments = names_of("Deployment")
    assert {each for each in deployments if not each.startswith("keyed-")} == {
        "shoal-controller", "shoal-gateway", *templates
    }  # fmt: skip
    assert len(deployments) == 6
    assert names_of("StatefulSet") == ["shoal-broker", "stock"]
    assert names_of("ConfigMap") == [f"{name}-{revision(name)}" for name in ("stock", "fit")]
    assert names_of("PersistentVolumeClaim") == ["models"]
    assert set(names_of("Service")) == {"shoal-controller", "shoal-gateway", "shoal-calls", "shoal-broker", "stock"}
    assert set(names_of("PodDisruptionBudget")) == {"shoal-controller", "shoal-gateway", "web", "stock"}
    assert {"Role", "RoleBinding", "ServiceAccount", "NetworkPolicy"} < set(kinds)


def test_the_counts_of_the_first_start() -> None:
    """Nothing is known of any demand: the least that each may have."""
    counts = {name: named("Deployment", f"{name}-{revision(name)}")["spec"]["replicas"] for name in ("web", "sleepy")}
    assert counts == {"web": 2, "sleepy": 0}
    stock = named("StatefulSet", "stock")
    assert (stock["spec"]["replicas"], stock["spec"]["updateStrategy"]["rollingUpdate"]) == (3, {"partition": 0})
    assert json.loads(stock["metadata"]["annotations"]["shoal.dev/ordinals"]) == [[revision("stock"), 3]]


def test_each_is_in_the_namespace() -> None:
    """So that nobody has to say it, and nothing lands in another one."""
    told = {item["metadata"].get("namespace") for item in rendered().objects if item["kind"] != "Namespace"}
    assert told == {"prod"} and names_of("Namespace") == ["prod"]


def test_up_finds_what_is_there() -> None:
    """What it would apply itself has the same hash, so that nothing is applied, and nothing starts anew."""
    own = Own.of(FLEET, "prod")
    for item in map(noted, [*render_installed(own, FLEET), *render_gateway(own)]):
        there = named(item["kind"], item["metadata"]["name"])
        assert there["metadata"]["annotations"][CONTENT] == item["metadata"]["annotations"][CONTENT]


def test_each_secret_that_is_named_is_told() -> None:
    """With what it holds, and whether it will have that name; and nothing else is."""
    pods = [item["spec"]["template"]["spec"] for item in rendered().objects if "template" in item.get("spec", {})]
    kept = [json.loads(item["data"]["template.json"]) for item in rendered().objects if item["kind"] == "ConfigMap"]
    used = {name for pod in (*pods, *(each["pod"]["spec"] for each in kept)) for name in secrets_of(pod)}
    told = {each.name: each for each in rendered().left_out}
    assert used | {"shoal-admin"} == told.keys()
    assert f"work-wiring-{revision('work')}" in told, "the revision says it, as nobody knows the password"
    stand_ins = [each for each in told.values() if each.stand_in]
    assert [each.holds for each in stand_ins] == [
        "the broker's configuration with its users", "the key API_KEY: the secret of keyed",
        "the key cert.pem: the secret of keyed",
    ]  # fmt: skip
    text = json.dumps(rendered().objects)
    assert "nats://" not in text
