"""Agents as objects of Kubernetes, and nothing that acts.

A revision of a stateless agent is a Deployment. A stateful agent is one StatefulSet over all its revisions, and runs of
a job are Jobs: of these a ConfigMap keeps what a revision's are made from.
"""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shoal.core.action import EnsureRevision, RunJob
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.names import Role, fleet_labels, object_name
from shoal.engines.kubernetes.render_pod import Object, PrivateVariable, claim_name, render_pod
from shoal.engines.kubernetes.render_pull import pulls_of
from shoal.engines.kubernetes.stateful import ORDINALS, Ordinals, render_ordinals
from shoal.spec.model import Fleet, Kind
from shoal.spec.volumes import parse_volume

_TEMPLATE = "template.json"
_NO_ATTEMPT: Object = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
_PROGRESS_S = 2**31 - 1  # whether a rollout goes on is Shoal's to say


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file says of all agents: the secrets that images are pulled with, and what claims ask for."""

    pulls: Sequence[str] = ()
    storage_class: str | None = None
    storage: str = "10Gi"


def settings_of(fleet: Fleet) -> Settings:
    """Those of a fleet."""
    options = fleet.kubernetes
    return Settings(pulls_of(fleet), options.storage_class, str(options.storage_bytes))


def revision_name(agent: str, revision: str) -> str:
    """Of the Deployment or the template of one."""
    return object_name(agent, revision)


def role_of_pods(action: EnsureRevision) -> Role:
    template = action.template
    if template.kind is Kind.JOB:
        return Role.RUN
    return Role.STATEFUL if template.stateful else Role.REVISION


def render_revision(
    fleet: str, action: EnsureRevision, private: Sequence[PrivateVariable], settings: Settings
) -> list[Object]:
    """What makes a revision known, with no replica: the Deployment or the template, and the claims that its pods refer
    to. Raises EngineError."""
    role = role_of_pods(action)
    pod = render_pod(fleet, action, role, private, settings.pulls)
    claims = [_claim(fleet, name, settings) for name in _claims(action)]
    if role is Role.REVISION:
        return [*claims, _deployment(fleet, action, pod)]
    owned = claims if role is Role.STATEFUL else []
    labels = fleet_labels(fleet, Role.TEMPLATE, agent=action.agent, revision=action.revision)
    template = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": revision_name(action.agent, action.revision), "labels": labels},
        "data": {_TEMPLATE: json.dumps({"role": role.value, "pod": pod, "claims": owned}, sort_keys=True)},
    }
    return [template] if role is Role.STATEFUL else [*claims, template]


def started_with(item: Object, count: int) -> Object:
    """Of what makes a revision known a Deployment with so many replicas from the start; all else as it is."""
    return {**item, "spec": {**item["spec"], "replicas": count}} if item["kind"] == "Deployment" else item


def read_template(item: Mapping[str, Any]) -> Object:
    """What the ConfigMap of a revision keeps: `role`, `pod`, `claims`."""
    return json.loads(item["data"][_TEMPLATE])


def _deployment(fleet: str, action: EnsureRevision, pod: Object) -> Object:
    labels = fleet_labels(fleet, Role.REVISION, agent=action.agent, revision=action.revision)
    own = {names.AGENT: action.agent, names.REVISION: action.revision}
    port = {names.PORT: str(action.template.port)} if action.template.port is not None else {}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": revision_name(action.agent, action.revision), "labels": labels, "annotations": port},
        "spec": {
            "replicas": 0,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": _PROGRESS_S,
            "selector": {"matchLabels": own},
            # Another version is another Deployment; this is for who restarts or changes this one by kubectl.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": pod,
        },
    }


def render_count(name: str, count: int) -> Object:
    """Of a Deployment that is there: nothing but how many replicas it has."""
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": count}}


def render_stateful(
    fleet: str, agent: str, template: Object, ordinals: Ordinals, claims: Sequence[Object] | None = None
) -> Object:
    """The StatefulSet with these ordinals; `template` is what the ConfigMap of the revision that is rolled out keeps.
    `claims` are those of the StatefulSet that is there: nobody can change what these ask for."""
    own = {names.AGENT: agent, names.ROLE: Role.STATEFUL.value}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": agent,
            "labels": fleet_labels(fleet, Role.STATEFUL, agent=agent),
            "annotations": {ORDINALS: render_ordinals(ordinals)},
        },
        "spec": {
            "replicas": len(ordinals.of),
            "serviceName": agent,
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": own},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": ordinals.partition}},
            "template": template["pod"],
            "volumeClaimTemplates": _kept_claims(template["claims"], claims or ()),
        },
    }


def _kept_claims(wanted: Sequence[Object], there: Sequence[Object]) -> Sequence[Object]:
    """What is there where it is for the same volumes: the file may name another size or class by now."""
    same = {each["metadata"]["name"] for each in wanted} == {each["metadata"]["name"] for each in there}
    return there if same else wanted


def render_governing(fleet: str, agent: str, port: int | None) -> Object:
    """The headless Service by which the replicas of a stateful agent have names of their own."""
    ports = {"ports": [{"name": "agent", "port": port}]} if port is not None else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": agent, "labels": fleet_labels(fleet, Role.STATEFUL, agent=agent)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.AGENT: agent, names.ROLE: Role.STATEFUL.value},
            **ports,
        },
    }


def render_budget(fleet: str, agent: str) -> Object:
    """Of the replicas of an agent, whatever their revision, a drain of nodes takes one at a time; one that is broken
    holds up nobody."""
    of = {"key": names.ROLE, "operator": "In", "values": [Role.REVISION.value, Role.STATEFUL.value]}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": agent, "labels": fleet_labels(fleet, Role.AGENT, agent=agent)},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {names.AGENT: agent}, "matchExpressions": [of]},
        },
    }


def render_run(fleet: str, template: Object, action: RunJob, started_at: float) -> Object:
    """One run of a job. Its attempts are Kubernetes'; each may last as long as the file says. One that a drained or
    lost node took is none."""
    labels = fleet_labels(fleet, Role.RUN, agent=action.agent, revision=action.revision, run=action.run_id)
    pod = copy.deepcopy(template["pod"])
    pod["metadata"]["labels"] |= {names.RUN: action.run_id}
    pod["spec"]["restartPolicy"] = "Never"
    if action.timeout_s is not None:
        pod["spec"]["activeDeadlineSeconds"] = max(1, math.ceil(action.timeout_s))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": object_name(action.run_id),
            "labels": labels,
            "annotations": {names.STARTED: f"{started_at:.3f}", names.RETRIES: str(action.retries)},
        },
        "spec": {
            "backoffLimit": action.retries,
            "completions": 1,
            "parallelism": 1,
            "podFailurePolicy": {"rules": [_NO_ATTEMPT]},
            "template": pod,
        },
    }


def _claims(action: EnsureRevision) -> list[str]:
    volumes = [parse_volume(text) for text in action.template.volumes]
    return list(dict.fromkeys(claim_name(volume.source) for volume in volumes if not volume.bound))


def _claim(fleet: str, name: str, settings: Settings) -> Object:
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": settings.storage}}}
    if settings.storage_class is not None:
        spec["storageClassName"] = settings.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": fleet_labels(fleet, Role.VOLUME)},
        "spec": spec,
    }


def render_wiring_secret(fleet: str, agent: str, private: Sequence[PrivateVariable]) -> Object:
    """What holds the private variables of a revision."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": private[0].secret, "labels": fleet_labels(fleet, Role.SECRET, agent=agent)},
        "data": {each.name: base64.b64encode(each.value.encode()).decode() for each in private},
    }
