"""A real API server takes every object that agents are rendered as, strictly, where pods have to be *restricted*."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
import yaml
from kubernetes_namespace import a_namespace
from kubernetes_rig import PATIENCE_S, restrict

from shoal.cli.kubernetes.render import format_rendered
from shoal.core.action import EnsureRevision, RunJob
from shoal.core.revision import revision_of, template_of
from shoal.engines.kubernetes.api import KubernetesError
from shoal.engines.kubernetes.api.kinds import POD, kind_of
from shoal.engines.kubernetes.render import (
    Settings,
    read_template,
    render_budget,
    render_governing,
    render_revision,
    render_run,
    render_stateful,
    render_wiring_secret,
)
from shoal.engines.kubernetes.render_fleet import render_fleet
from shoal.engines.kubernetes.render_pod import private_variables
from shoal.engines.kubernetes.stateful import Ordinals
from shoal.spec.model import Agent, Fleet

pytestmark = pytest.mark.kubernetes

Object = dict[str, Any]

AGENTS: dict[str, Object] = {
    "web": {
        "command": ["serve", "$PORT", "$$"], "working_dir": "/srv", "port": 8000, "user": "1000:1000",
        "read_only": False, "environment": {"A": "$(B)", "B": ""}, "health": "/ok", "secrets": ["key.pem"],
        "resources": {"cpu": "250m", "memory": "64Mi", "gpu": 1}, "calls": ["rpc"], "stop_grace_period": 0,
        "placement": {"require": {"disk": "ssd"}, "prefer": {"zone": "a"}, "spread": "zone", "max_per_node": 2},
        "tmpfs": ["/var/run:size=16Mi"], "shm_size": "64Mi", "volumes": ["models_v2:/models:ro"],
        "public": "/", "idempotent": ["GET"], "max_requests": 5, "request_timeout": "5s",
        "sticky": {"header": "X-User"}, "update": {"max_surge": 1}, "scale": 2, "depends_on": ["rpc"],
    },
    "rpc": {"port": 9000, "protocol": "grpc", "health": "/ok", "stateful": True, "volumes": ["stock:/data"]},
    "ring": {"command": ["work", "$SHOAL_ORDINAL"], "queue": "tasks", "stateful": True},
    "work": {"command": "work", "queue": "tasks", "publishes": ["tasks"], "secrets": [{"name": "KEY", "as": "env"}]},
    "fit": {"command": "fit", "schedule": "0 2 * * *", "timeout": "90s", "retries": 3, "volumes": ["models_v2:/m"]},
}  # fmt: skip
UNRESTRICTED = {
    "host": {"command": "serve", "port": 80, "volumes": ["/models:/models"]},
    "able": {"command": "serve", "port": 80, "cap_add": ["CHOWN"]},
    "root": {"command": "serve", "port": 80, "user": "0:0"},
}
DIGESTS = {"KEY": "0123456789abcdef" * 4, "key.pem": "fedcba9876543210" * 4}


def objects(agents: dict[str, Object]) -> list[Object]:
    """All that they are made of, and of each a pod as its controller would make it."""
    given = {name: {"image": "acme/web", **agent} for name, agent in agents.items()}
    fleet = Fleet.model_validate({"fleet": "shop", "queues": {"tasks": {}}, "agents": given})
    made: list[Object] = []
    for name in agents:
        template = template_of(fleet, name, DIGESTS)
        url = {"SHOAL_QUEUE_TASKS_URL": "nats://web:secret@broker:4222", "SHOAL_URL_WEB": "http://gateway/web"}
        action = EnsureRevision(name, revision_of(template), template, url)
        private = private_variables(name, url, action.revision)
        made.append(render_wiring_secret("shop", name, private))
        made.append(render_budget("shop", name))
        rendered = render_revision("shop", action, private, Settings(pulls=("ghcr",), storage="1Gi"))
        made += rendered
        pod = rendered[-1]["spec"]["template"] if rendered[-1]["kind"] == "Deployment" else None
        if pod is None:
            kept = read_template(rendered[-1])
            pod = copy.deepcopy(kept["pod"])
            if template.stateful:
                ordinals = Ordinals(("old", action.revision), action.revision)
                made += [render_governing("shop", name, template.port), render_stateful("shop", name, kept, ordinals)]
                claims = [each["metadata"]["name"] for each in kept["claims"]]
                pod["spec"]["volumes"] += [{"name": each, "emptyDir": {}} for each in claims]
            else:
                made.append(render_run("shop", kept, RunJob(name, action.revision, f"{name}-1", 90.0, 3), 1.0))
                pod = made[-1]["spec"]["template"]
        made.append({"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {**pod["metadata"], "name": name}})
    return made


async def test_everything_is_taken() -> None:
    """Nothing in it is unknown, and no pod asks for more than *restricted* lets it."""
    async with a_namespace() as kubernetes:
        await restrict(kubernetes)
        refused: list[str] = []
        for item in objects(AGENTS):
            kind = POD if item["kind"] == "Pod" else kind_of(item)
            try:
                await kubernetes.apply(kind, item, dry_run=True)
            except KubernetesError as error:
                refused.append(str(error))
        assert refused == []


@pytest.mark.parametrize("name", UNRESTRICTED)
async def test_what_asks_for_more_is_refused_there(name: str) -> None:
    """By its pod, with what to do; where nothing is enforced it is taken."""
    *rendered, pod = objects({name: UNRESTRICTED[name]})
    async with a_namespace() as kubernetes:
        await kubernetes.apply(kind_of(rendered[-1]), rendered[-1], dry_run=True)
        await restrict(kubernetes)
        with pytest.raises(KubernetesError, match=r"violates PodSecurity .*ask for less in the file"):
            async with asyncio.timeout(PATIENCE_S):
                while True:  # what admits pods hears a moment later of what its namespace enforces
                    await kubernetes.apply(POD, pod, dry_run=True)
                    await asyncio.sleep(0.1)


async def test_a_rendered_fleet_is_taken() -> None:
    """As `shoal render` writes it: what Shoal itself runs too is *restricted*."""
    agents = {name: {"image": "acme/web", **agent} for name, agent in AGENTS.items()}
    registries = {"ghcr.io": {"secret": "PULL"}}
    fleet = Fleet.model_validate(
        {"fleet": "shop", "queues": {"tasks": {}}, "agents": agents, "registries": registries, "engine": "kubernetes"}
    )
    async with a_namespace() as kubernetes:
        await restrict(kubernetes)
        text = format_rendered(fleet, kubernetes.namespace, render_fleet(fleet, kubernetes.namespace))
        refused: list[str] = []
        for item in yaml.safe_load_all(text):
            for each, dry_run in ((item, item["kind"] != "ServiceAccount"), *((pod, True) for pod in pods_of(item))):
                try:
                    await kubernetes.apply(POD if each["kind"] == "Pod" else kind_of(each), each, dry_run=dry_run)
                except KubernetesError as error:
                    refused.append(str(error))
        assert refused == []


def pods_of(item: Object) -> list[Object]:
    """One as the object's controller would make it: that is what Pod Security looks at."""
    spec = item.get("spec", {})
    if "template" not in spec:
        return []
    pod = copy.deepcopy(spec["template"])
    claims = [each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", ())]
    pod["spec"]["volumes"] += [{"name": each, "emptyDir": {}} for each in claims]
    return [
        {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {**pod["metadata"], "name": item["metadata"]["name"]}}
    ]


def test_every_key_of_an_agent_is_tried() -> None:
    used = {key for agents in (AGENTS, UNRESTRICTED) for agent in agents.values() for key in agent} | {"image"}
    assert used == {field.alias or name for name, field in Agent.model_fields.items()}
