"""What a cluster refuses, told by the command line: which, why, and what to do; and nothing is half done unsaid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_namespace import a_namespace
from kubernetes_rig import FLEET, SERVICE, Rig, a_rig
from kubernetes_shoal import Shoal

from shoal.core.action import EnsureRevision, RunJob, Scale
from shoal.core.observed import AgentObserved, JobRun
from shoal.core.revision import revision_of, template_of
from shoal.engines.kubernetes.api import Kind, Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    NAMESPACE,
    NETWORK_POLICY,
    ROLE,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
)
from shoal.engines.kubernetes.api.kinds import SERVICE as SERVICE_KIND
from shoal.spec.model import Fleet
from tests.kubernetes_cluster import Cluster, ClusterImages

QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas")
LIMITS = Kind("", "v1", "LimitRange", "limitranges")
POLICY = Kind(
    "admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False
)
BINDING = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    namespaced=False,
)
PATIENCE_S = 120.0


@pytest.fixture
async def shoal(tmp_path: Path, kubernetes: Cluster, kubernetes_images: ClusterImages) -> AsyncIterator[Shoal]:
    async with a_namespace() as api:
        yield Shoal(tmp_path, kubernetes, api, kubernetes_images.shoal)


def thing(kind: Kind, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}, **more}


async def be(shoal: Shoal, name: str, role: Mapping[str, str]) -> str:
    """From now on commands are of a person with this role; gives who that is."""
    api = shoal.kubernetes
    await api.create(SERVICE_ACCOUNT, thing(SERVICE_ACCOUNT, name))
    who = {"kind": "ServiceAccount", "name": name, "namespace": api.namespace}
    await api.create(ROLE_BINDING, thing(ROLE_BINDING, name, roleRef={"apiGroup": ROLE.group, **role}, subjects=[who]))
    path = SERVICE_ACCOUNT.path(api.namespace, name, "token")
    token = await api.request("POST", path, json={"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"})
    config = yaml.safe_load(Path(shoal.environ["KUBECONFIG"]).read_text())
    config["users"] = [{"name": each["name"], "user": {"token": token["status"]["token"]}} for each in config["users"]]
    mine = shoal.directory / "kubeconfig"
    mine.write_text(yaml.safe_dump(config))
    shoal.environ["KUBECONFIG"] = str(mine)
    return f"system:serviceaccount:{api.namespace}:{name}"


async def test_who_has_few_rights(shoal: Shoal) -> None:
    """Is told which one is missing, and what to do; nothing was made. `doctor` tells all of them at once."""
    api = shoal.kubernetes
    rules = [
        {"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "list"]},
    ]
    await api.create(ROLE, thing(ROLE, "reader", rules=rules))
    user = await be(shoal, "reader", {"kind": "Role", "name": "reader"})
    said = await shoal.refused()
    assert f"{user} lacks the right to create secrets" in said and "let a Role with that verb be bound to it" in said
    assert (await api.list(CONFIG_MAP, {"shoal.dev/fleet": FLEET}))[0] == []
    code, said = await shoal.run("doctor", "-o", "json")
    found = {each["check"]: each["found"] for each in json.loads(said)}
    assert code == 1 and "get deployments.apps, list deployments.apps, create dep" in found["rights"]
    assert found["rights_to_look"] == "you may not get services/proxy, create services/proxy"
    assert "delete roles.rbac.authorization.k8s.io" in found["rights_to_end"]
    assert "list events" in found["rights_to_grant"] and "get secrets" not in found["rights_to_grant"]


async def test_who_may_not_look_at_roles(shoal: Shoal) -> None:
    """As the built-in role `edit` has it: nothing is stored of an `up`, and of a `down` it is told what stays."""
    api, admin = shoal.kubernetes, shoal.environ["KUBECONFIG"]
    await shoal.up({"agents": {"night": {"image": "acme/night:1", "command": ["true"], "schedule": "0 0 1 1 *"}}})
    user = await be(shoal, "editor", {"kind": "ClusterRole", "name": "edit"})
    said = await shoal.refused()
    assert f"{user} lacks the right to list role" in said and "No new generation is stored" in said
    assert (await shoal.run("plan", "--detailed-exitcode"))[0] == 2
    assert json.loads((await shoal.run("status", "-o", "json"))[1])["generation"] == 1
    code, said = await shoal.run("down")
    assert code == 1 and "Gone: the controller, " in said and f"{user} lacks the right to list rolebindings" in said
    assert "What stays, as far as there is any: rolebindings, roles; `shoal down` again goes on from there" in said
    assert (await api.list(ROLE, {"shoal.dev/fleet": FLEET}))[0] != []
    shoal.environ["KUBECONFIG"] = admin
    assert (await shoal.run("down"))[0] == 0 and (await api.list(ROLE, {"shoal.dev/fleet": FLEET}))[0] == []


async def test_a_context_that_is_not_there(shoal: Shoal) -> None:
    """Is told with those that are."""
    said = await shoal.refused(context="nowhere")
    assert "nowhere" in said and shoal.context in said


async def test_a_cluster_that_is_not_there(shoal: Shoal) -> None:
    """Is told with its address; `doctor` says the same, and goes no further."""
    config = yaml.safe_load(Path(shoal.environ["KUBECONFIG"]).read_text())
    for each in config["clusters"]:
        each["cluster"]["server"] = "https://127.0.0.1:9"
    away = shoal.directory / "kubeconfig"
    away.write_text(yaml.safe_dump(config))
    shoal.environ["KUBECONFIG"] = str(away)
    said = await shoal.refused()
    assert "https://127.0.0.1:9" in said and "can't be reached" in said and "kubectl get nodes" in said
    code, said = await shoal.run("doctor")
    assert code == 1 and "can't be reached" in said


async def test_a_namespace_that_is_going_away(shoal: Shoal) -> None:
    """Is not written to."""
    api = shoal.kubernetes
    held = thing(CONFIG_MAP, "held")
    held["metadata"]["finalizers"] = ["shoal.test/held"]
    await api.create(CONFIG_MAP, held)
    await api.delete(NAMESPACE, api.namespace)
    try:
        said = await shoal.refused()
        assert f"the namespace {api.namespace} is being deleted: wait until it is gone, or name another" in said
    finally:
        await api.patch(CONFIG_MAP, "held", {"metadata": {"finalizers": None}})


async def test_what_admission_refuses(shoal: Shoal) -> None:
    """In the words of the policy, before anything is stored or made."""
    api = shoal.kubernetes
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": api.namespace}}}
    constraints = {"resourceRules": [rule], **here}
    validations = [{"expression": "false", "message": "nothing is deployed on Sundays"}]
    policy = thing(POLICY, api.namespace, spec={"matchConstraints": constraints, "validations": validations})
    binding = thing(BINDING, api.namespace, spec={"policyName": api.namespace, "validationActions": ["Deny"]})
    await api.create(POLICY, policy)
    await api.create(BINDING, binding)
    try:
        await _until_denied(api)
        said = await shoal.refused()
    finally:
        await api.delete(BINDING, api.namespace)
        await api.delete(POLICY, api.namespace)
    assert "nothing is deployed on Sundays" in said and "an admission controller of this cluster" in said
    assert "No new generation is stored" in said
    for kind in (NETWORK_POLICY, CONFIG_MAP):
        assert (await api.list(kind, {"shoal.dev/fleet": FLEET}))[0] == []


async def test_a_port_that_another_service_has(shoal: Shoal) -> None:
    """Is told before anything is stored or made, though it is the controller that makes the gateways' Service."""
    api = shoal.kubernetes
    theirs = await api.create(
        SERVICE_KIND, thing(SERVICE_KIND, "theirs", spec={"type": "NodePort", "ports": [{"port": 80}]})
    )
    taken = theirs["spec"]["ports"][0]["nodePort"]
    said = await shoal.refused(service="NodePort", node_port=taken)
    assert "refused apply Service shoal-gateway" in said and f"nodePort: Invalid value: {taken}" in said
    assert "provided port is already allocated" in said and "No new generation is stored" in said
    assert (await api.list(CONFIG_MAP, {"shoal.dev/fleet": FLEET}))[0] == []


async def _until_denied(api: Kubernetes) -> None:
    """A policy is in force a moment after it was made."""
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": pod}
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await api.create(DEPLOYMENT, thing(DEPLOYMENT, "probe", spec=spec))
            except KubernetesError as error:
                if error.reason != "AlreadyExists":
                    return
            await api.delete(DEPLOYMENT, "probe")
            await asyncio.sleep(0.2)


async def test_what_is_of_somebody_else(shoal: Shoal) -> None:
    """Is left as it is, and told with who made it."""
    api = shoal.kubernetes
    theirs = thing(NETWORK_POLICY, "shoal-default", spec={"podSelector": {"matchLabels": {"a": "b"}}})
    await api.apply(NETWORK_POLICY, theirs, manager="argocd")
    said = await shoal.refused()
    assert f"NetworkPolicy shoal-default in {api.namespace} is not ours (made by argocd)" in said
    assert "give this fleet a namespace of its own" in said
    assert (await api.get(NETWORK_POLICY, "shoal-default"))["spec"]["podSelector"] == {"matchLabels": {"a": "b"}}


async def test_a_controller_that_can_not_be_run(
    shoal: Shoal, tmp_path: Path, kubernetes: Cluster, kubernetes_images: ClusterImages
) -> None:
    """Whose image can't be had, or for whose pods there is no quota: `up` says so, and does not wait for ever."""
    async with a_namespace() as api:
        await api.create(QUOTA, thing(QUOTA, "none", spec={"hard": {"pods": "0"}}))
        (elsewhere := tmp_path / "elsewhere").mkdir()
        full = Shoal(elsewhere, kubernetes, api, kubernetes_images.shoal)
        of_image, of_quota = await asyncio.gather(shoal.refused(image="localhost:1/nothing:1"), full.refused())
    assert "Its pods do not run" in of_image and "localhost:1/nothing:1" in of_image
    assert "push the image to a registry" in of_image
    assert "Its pods do not run" in of_quota and "exceeded quota: none" in of_quota
    assert "kubectl describe quota" in of_quota


async def test_a_next_controller_that_can_not_be_run(shoal: Shoal) -> None:
    """Whose image can't be had, while the one from before goes on: `up` and `status` say so, until it is taken back."""
    night = {"agents": {"night": {"image": "acme/night:1", "command": ["true"], "schedule": "0 0 1 1 *"}}}
    await shoal.up(night)
    said = await shoal.refused(image="localhost:1/nothing:1", spec=night)
    assert "a controller does not run: " in said and "localhost:1/nothing:1" in said
    assert "What ran before goes on meanwhile" in said and "What runs is generation 2, which is stored." in said
    code, said = await shoal.run("status", spec=night)
    assert code == 0 and "problem: a controller does not run: " in said
    await shoal.up(night)
    async with asyncio.timeout(PATIENCE_S):
        while "problem: " in (await shoal.run("status", spec=night))[1]:
            await asyncio.sleep(0.5)


@pytest.fixture
async def rig(kubernetes_images: ClusterImages) -> AsyncIterator[Rig]:
    async with a_rig(kubernetes_images.agents) as rig:
        yield rig


async def test_a_secret_that_is_gone(rig: Rig) -> None:
    """What only an event tells: the volume that can't be mounted, and of which Secret."""
    document = {"fleet": FLEET, "agents": {"web": {"image": rig.image, **SERVICE, "secrets": ["TOKEN"]}}}
    template = template_of(Fleet.model_validate(document), "web", {"TOKEN": "ab" * 32})
    web = EnsureRevision("web", revision_of(template), template, {})
    await rig.act(web, Scale("web", web.revision, 1))
    reason = await rig.until("web", lambda agent: _reason(agent, "FailedMount"))
    assert 'secret "token-' in reason and "not found (`shoal up` puts it back)" in reason


async def test_pods_that_a_quota_refuses(rig: Rig) -> None:
    """Of a Deployment, a StatefulSet and a Job alike."""
    await rig.kubernetes.create(QUOTA, thing(QUOTA, "none", spec={"hard": {"pods": "0"}}))
    web = rig.ensure("web", SERVICE)
    stock = rig.ensure("stock", {**SERVICE, "stateful": True})
    night = rig.ensure("night", {"command": ["true"], "schedule": "0 0 1 1 *"})
    await rig.act(web, stock, night, Scale("web", web.revision, 1), Scale("stock", stock.revision, 1))
    await rig.act(RunJob("night", night.revision, "night-1"))
    for agent in ("web", "stock"):
        assert "kubectl describe quota" in await rig.until(agent, lambda agent: _reason(agent, "exceeded quota: none"))
    run = await rig.until("night", _refused_run)
    assert "kubectl describe quota" in run.reason


async def test_a_quota_that_wants_limits(rig: Rig) -> None:
    """What is told of it is a way out: defaults of the namespace, for what the file does not say."""
    hard = {"limits.cpu": "4", "limits.memory": "4Gi"}
    await rig.kubernetes.create(QUOTA, thing(QUOTA, "limits", spec={"hard": hard}))
    async with asyncio.timeout(PATIENCE_S):
        while (await rig.kubernetes.get(QUOTA, "limits")).get("status", {}).get("hard") != hard:
            await asyncio.sleep(0.1)  # until then it does not hold
    web = rig.ensure("web", {**SERVICE, "resources": {"memory": "64Mi"}})
    await rig.act(web, Scale("web", web.revision, 1))
    reason = await rig.until("web", lambda agent: _reason(agent, "failed quota: limits: must specify"))
    assert "must specify limits.cpu for: agent (in the file" in reason and "LimitRange with defaults" in reason
    defaults = {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "10m"}}
    await rig.kubernetes.create(LIMITS, thing(LIMITS, "defaults", spec={"limits": [defaults]}))
    await rig.ready("web", 1)


def _reason(agent: AgentObserved, words: str) -> str | None:
    return next((each.reason for each in agent.replicas if words in each.reason), None)


def _refused_run(agent: AgentObserved) -> JobRun | None:
    return next((run for run in agent.runs if "exceeded quota: none" in run.reason), None)
