"""The pods of agents, as values: what one replica or run is made of.

They pass the Pod Security Standard *restricted* unless the file asks for more: no root, no capability, no new
privileges, a root file system that is only read, the runtime's seccomp profile, and no token of the API.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shoal.core.action import EnsureRevision
from shoal.core.liveness import restarts_after
from shoal.core.template import Template
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.names import Role, fleet_labels, object_name, secret_name
from shoal.engines.kubernetes.stateful import POD_INDEX
from shoal.errors import EngineError
from shoal.spec.model import Kind
from shoal.spec.tmpfs import parse_tmpfs
from shoal.spec.volumes import parse_volume

Object = dict[str, Any]  # of the Kubernetes API

NOBODY = 65534
SECRETS_DIRECTORY = "/run/secrets/shoal"
CONTAINER = "agent"
GPU = "nvidia.com/gpu"
LEAVES_S = 2  # between the news that a pod ends and its SIGTERM: what does not come by our gateway learns of it too
AGENTS_ACCOUNT = "shoal-agent"
USES_BROKER = "shoal.dev/uses-broker"
USES_OUTSIDE = "shoal.dev/uses-outside"

_RUN_TIME_VARIABLE = re.compile(r"\$(?:\{(PORT|SHOAL_[A-Z0-9_]+)\}|(PORT|SHOAL_[A-Z0-9_]+)\b)")
_OFTEN_S = 2  # whoever may be asked so often may be asked every second
_NODE = "kubernetes.io/hostname"
_NODE_LOST_S = 20  # after the 50 s in which Kubernetes says so, 40 s before 1.32
_AT_START = "\0"  # of a variable that is known only then


@dataclass(frozen=True, slots=True)
class PrivateVariable:
    """A variable that holds credentials: it reaches the container from a Secret, so that no object shows it."""

    name: str
    secret: str  # of the object
    value: str


def private_variables(agent: str, environment: Mapping[str, str], revision: str) -> tuple[PrivateVariable, ...]:
    """Those with a user and a password in a URL, for one revision."""
    found = {name: value for name, value in environment.items() if re.search(r"://[^/@\s]*:[^/@\s]*@", value)}
    secret = wiring_name(agent, revision)
    return tuple(PrivateVariable(name, secret, value) for name, value in sorted(found.items()))


def wiring_name(agent: str, revision: str) -> str:
    """Of the Secret that holds the private variables of a revision: it says nothing of what they are, so that the
    revision is rendered the same by who does not know them."""
    return object_name(agent, "wiring", revision)


def render_pod(
    fleet: str, action: EnsureRevision, role: Role, private: Sequence[PrivateVariable], pulls: Sequence[str]
) -> Object:
    """The template of the pods of a revision. `pulls` names the secrets with which images are pulled. Raises
    EngineError."""
    template = action.template
    labels = fleet_labels(fleet, role, agent=action.agent, revision=action.revision)
    if template.queue or template.publishes:
        labels[USES_OUTSIDE if template.outside else USES_BROKER] = "1"
    volumes, mounts = _volumes(template)
    environment = _environment(action, role, private)
    pod: Object = {
        "serviceAccountName": AGENTS_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # so that the program is not PID 1, which ignores what it does not handle
        "securityContext": _pod_security(template),
        "terminationGracePeriodSeconds": math.ceil(template.stop_grace_period_s) + _leaves_s(template),
        "containers": [_container(action, environment, mounts)],
        "volumes": volumes,
        **_placement(template, role),
    }
    if pulls:
        pod["imagePullSecrets"] = [{"name": name} for name in pulls]
    return {"metadata": {"labels": labels}, "spec": pod}


def _container(action: EnsureRevision, environment: Sequence[Object], mounts: Sequence[Object]) -> Object:
    template = action.template
    if template.image is None:
        raise EngineError(f"agents.{template.agent}.image: missing; on Kubernetes a replica runs from an image")
    container: Object = {
        "name": CONTAINER,
        "image": template.image,
        "imagePullPolicy": "IfNotPresent",  # whatever the tag: a replica that is started again is what it was
        "env": list(environment),
        "volumeMounts": list(mounts),
        "resources": _resources(template),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": template.read_only,
            "capabilities": {"drop": ["ALL"], **({"add": list(template.cap_add)} if template.cap_add else {})},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_probes(template),
    }
    if template.command is not None:
        known = {each["name"]: each.get("value", _AT_START) for each in environment}
        container["command"] = [_put_in(word, template, known) for word in template.command]
    if template.working_dir is not None:
        container["workingDir"] = template.working_dir
    if template.port is not None:
        container["ports"] = [{"name": "agent", "containerPort": template.port}]
    if _leaves_s(template):
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": LEAVES_S}}}
    return container


def _environment(action: EnsureRevision, role: Role, private: Sequence[PrivateVariable]) -> list[Object]:
    template = action.template
    hidden = {each.name: each.secret for each in private}
    plain = {"PYTHONUNBUFFERED": "1"}
    if not template.resources.gpu:
        plain["CUDA_VISIBLE_DEVICES"] = ""
    plain |= template.environment
    plain |= {name: value for name, value in action.environment.items() if name not in hidden}
    if template.port is not None:
        plain["PORT"] = str(template.port)
    if template.secrets:
        plain["SHOAL_SECRETS"] = SECRETS_DIRECTORY
    for text in template.volumes:
        volume = parse_volume(text)
        plain[volume.variable] = volume.path
    for text in template.tmpfs:
        each = parse_tmpfs(text)
        plain[each.variable] = each.path
    told = {name: {"value": _literal(value)} for name, value in plain.items()}
    told |= _identity(role)
    told |= {name: _from_secret(secret, name) for name, secret in hidden.items()}
    for use in template.secrets:
        if use.as_env:
            told[use.name] = _from_secret(secret_name(use.name, use.digest), use.name)
    order = sorted(told, key=lambda name: (not name.startswith("SHOAL_POD_"), name))  # what others refer to comes first
    return [{"name": name, **told[name]} for name in order]


def _identity(role: Role) -> Mapping[str, Object]:
    """Who the replica is, which is known when its pod is made."""
    name = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    if role is Role.RUN:
        run = {"valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{names.RUN}']"}}}
        return {"SHOAL_REPLICA": run, "SHOAL_RUN": run}
    if role is not Role.STATEFUL:
        return {"SHOAL_REPLICA": name}
    return {
        "SHOAL_POD_NAME": name,
        "SHOAL_POD_UID": {"valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        "SHOAL_ORDINAL": {"valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{POD_INDEX}']"}}},
        "SHOAL_REPLICA": {"value": "$(SHOAL_POD_NAME).$(SHOAL_POD_UID)"},
    }


def _from_secret(secret: str, key: str) -> Object:
    return {"valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _literal(text: str) -> str:
    """As it is: Kubernetes would put variables in for `$(NAME)`, and one `$` for two."""
    return text.replace("$", "$$")


def _put_in(word: str, template: Template, environment: Mapping[str, str]) -> str:
    """The word with `$PORT`, `${PORT}` and `$SHOAL_*` put in; every other `$` stays as it is."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in environment:
            raise EngineError(
                f"agents.{template.agent}.command: ${name} is not a variable that this agent is given; it has "
                f"{', '.join(sorted(each for each in environment if each.startswith(('SHOAL_', 'PORT'))))}"
            )
        return f"$({name})"

    parts: list[str] = []
    end = 0
    for match in _RUN_TIME_VARIABLE.finditer(word):
        parts += [_literal(word[end : match.start()]), value(match)]
        end = match.end()
    return "".join([*parts, _literal(word[end:])])


def _probes(template: Template) -> Object:
    """As the local engine asks: often while it starts, then at `interval`; what counts as failed is its rule too.

    Kubelet asks a readiness probe at once when the container runs, a startup probe at its next second only, and no
    other before that one has passed. So one that is asked nearly every second anyway has none: who does not answer by
    the end of `start_period` has then failed as often as the end of a replica takes.
    """
    if template.kind is not Kind.SERVICE:
        return {}
    health = template.health
    by_http = health.path is not None and template.protocol == "http"  # a gRPC server speaks no HTTP/1
    ask: Object = {"httpGet": {"path": health.path, "port": "agent"}} if by_http else {"tcpSocket": {"port": "agent"}}
    ask |= {"timeoutSeconds": max(1, math.ceil(health.timeout_s))}
    interval_s, start_s = max(1, round(health.interval_s)), max(1, math.ceil(health.start_period_s))
    misses = restarts_after(health.retries)
    alive = {**ask, "periodSeconds": interval_s, "failureThreshold": misses}
    left_alone_s = start_s - misses * interval_s
    if interval_s <= _OFTEN_S and left_alone_s >= 0:
        return {
            "readinessProbe": {**ask, "periodSeconds": 1, "failureThreshold": health.retries * interval_s},
            "livenessProbe": {**alive, "initialDelaySeconds": left_alone_s},
        }
    return {
        "startupProbe": {**ask, "periodSeconds": 1, "failureThreshold": start_s},
        "readinessProbe": {**ask, "periodSeconds": interval_s, "failureThreshold": health.retries},
        "livenessProbe": alive,
    }


def _leaves_s(template: Template) -> int:
    return LEAVES_S if template.kind is Kind.SERVICE else 0


def _pod_security(template: Template) -> Object:
    """A name of a user means something in the image alone, so that a number has to be given."""
    user, _, group = (template.user or str(NOBODY)).partition(":")
    group = group or user
    if not user.isdigit() or not group.isdigit():
        raise EngineError(
            f"agents.{template.agent}.user: found {template.user}; on Kubernetes a user and a group are numbers, such "
            "as 1000:1000, as nobody there looks names up in the image"
        )
    return {
        "runAsNonRoot": int(user) != 0,
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "fsGroup": int(group),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def claim_name(volume: str) -> str:
    """Of the claim for a volume of that name."""
    return f"{volume.replace('_', '-')}-{hashlib.sha256(volume.encode()).hexdigest()[:6]}" if "_" in volume else volume


def _volumes(template: Template) -> tuple[list[Object], list[Object]]:
    """What the pod has, and where its container finds it. Volumes of a stateful agent come with the StatefulSet."""
    volumes: list[Object] = []
    mounts: list[Object] = []
    for text in template.volumes:
        volume = parse_volume(text)
        name = claim_name(volume.source)
        if volume.bound:
            if not volume.source.startswith("/"):
                raise EngineError(
                    f"agents.{template.agent}.volumes: found {text}; on Kubernetes a directory of the host is one of "
                    "the node that a replica happens to run on, so write its absolute path there, or a volume's name"
                )
            name = f"shoal-host-{len(volumes)}"
            volumes.append({"name": name, "hostPath": {"path": volume.source}})
        elif not template.stateful:
            volumes.append({"name": name, "persistentVolumeClaim": {"claimName": name}})
        mounts.append({"name": name, "mountPath": volume.path, **({"readOnly": True} if volume.read_only else {})})
    in_memory = [(each.path, each.size_bytes) for each in map(parse_tmpfs, template.tmpfs)]
    taken = {mount["mountPath"] for mount in mounts} | {path for path, _ in in_memory}
    if "/tmp" not in taken:
        in_memory.append(("/tmp", None))
    if template.shm_size_bytes is not None:
        in_memory.append(("/dev/shm", template.shm_size_bytes))
    for number, (path, size_bytes) in enumerate(in_memory):
        size = {"sizeLimit": str(size_bytes)} if size_bytes is not None else {}
        volumes.append({"name": f"shoal-memory-{number}", "emptyDir": {"medium": "Memory", **size}})
        mounts.append({"name": f"shoal-memory-{number}", "mountPath": path})
    if template.secrets:
        volumes.append(
            {"name": "shoal-secrets", "projected": {"defaultMode": 0o440, "sources": _secret_files(template)}}
        )
        mounts.append({"name": "shoal-secrets", "mountPath": SECRETS_DIRECTORY, "readOnly": True})
    return volumes, mounts


def _secret_files(template: Template) -> list[Object]:
    for use in template.secrets:
        if not use.digest:
            raise EngineError(
                f"the secret {use.name} has no content in this fleet any more; give it one by `shoal secret set "
                f"{use.name}`, or from its source by `shoal up`"
            )
    return [
        {"secret": {"name": secret_name(use.name, use.digest), "items": [{"key": use.name, "path": use.name}]}}
        for use in template.secrets
    ]


def _resources(template: Template) -> Object:
    asked = template.resources
    requests: Object = {}
    limits: Object = {}
    if asked.cpu is not None:
        requests["cpu"] = f"{math.ceil(round(asked.cpu * 1000, 3))}m"
    if asked.memory_bytes is not None:
        requests["memory"] = limits["memory"] = str(asked.memory_bytes)
    if asked.gpu:
        limits[GPU] = str(asked.gpu)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def leave_lost_node() -> list[Object]:
    """The tolerations of a pod whose place another one may take: elsewhere 70 s after its node was last heard of,
    where Kubernetes by itself waits five more. An identity stays with its node: nobody can know that it ended."""
    return [
        {
            "key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": _NODE_LOST_S,
        }
        for why in ("not-ready", "unreachable")
    ]  # fmt: skip


def _placement(template: Template, role: Role) -> Object:
    wanted = template.placement
    found: Object = {}
    affinity: Object = {}
    if wanted.require:
        found["nodeSelector"] = dict(sorted(wanted.require.items()))
    if wanted.prefer:
        affinity["nodeAffinity"] = {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 10, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}}
                for key, value in sorted(wanted.prefer.items())
            ]
        }
    if affinity:
        found["affinity"] = affinity
    spread: Object = {
        "labelSelector": {"matchLabels": {names.AGENT: template.agent}}, "matchLabelKeys": [names.REVISION]
    }  # fmt: skip
    found["topologySpreadConstraints"] = [
        {"maxSkew": 1, "topologyKey": wanted.spread or _NODE, "whenUnsatisfiable": "ScheduleAnyway", **spread}
    ]
    if wanted.max_per_node is not None:  # more nodes asked for than there are: then each is compared with none
        found["topologySpreadConstraints"].append(
            {
                "maxSkew": wanted.max_per_node, "minDomains": 2**31 - 1, "topologyKey": _NODE,
                "whenUnsatisfiable": "DoNotSchedule", **spread,
            }
        )  # fmt: skip
    tolerated = [(GPU, None)] if template.resources.gpu else []
    tolerated += sorted(wanted.require.items())
    # A node that is kept for what asks for its label is meant.
    tolerations: list[Object] = [
        {"key": key, **({"operator": "Exists"} if value is None else {"operator": "Equal", "value": value})}
        for key, value in tolerated
    ]
    if role is Role.REVISION:
        tolerations += leave_lost_node()
    if tolerations:
        found["tolerations"] = tolerations
    return found
