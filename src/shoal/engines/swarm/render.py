"""Agents as Swarm services: values for the Docker Engine API, and nothing that acts.

One service a revision. Of a stateless agent it has the replicas; of a stateful one and of a job it stays empty, and is
what the services of the ordinals and of the runs are made from: what has to be known of a revision is kept by Swarm.

What a container may is as little as most programs need, unless the file says otherwise: no root, no capability, a root
file system that is only read, with `/tmp` in memory; and in any case no new privileges.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.core.action import EnsureRevision, RunJob
from shoal.core.template import Template
from shoal.engines.swarm import names
from shoal.engines.swarm.names import Role, fleet_labels, object_name, secret_name
from shoal.errors import EngineError
from shoal.spec.model import Kind
from shoal.spec.tmpfs import parse_tmpfs
from shoal.spec.volumes import parse_volume

Spec = dict[str, Any]  # a ServiceSpec of the Docker Engine API

NOBODY = "65534:65534"
SECRETS_DIRECTORY = "/run/secrets"
START_PATH = "/run/shoal/start"
RESTART_DELAY_S = 1.0
MOST_PIDS = 4096
GPU_KIND = "gpu"
GPU_VARIABLE = f"DOCKER_RESOURCE_{GPU_KIND.upper()}"  # Swarm's, with the ids that it hands out

# Gives secrets with `as: env` their variables, and the devices that Swarm hands out theirs; then it is the command.
START_SCRIPT = f"""\
for name in $SHOAL_SECRET_VARIABLES; do
  value=$(cat "$SHOAL_SECRETS/$name") || exit 126
  export "$name=$value"
done
unset SHOAL_SECRET_VARIABLES value name
if [ -n "${GPU_VARIABLE}" ]; then
  export CUDA_VISIBLE_DEVICES="${GPU_VARIABLE}"
fi
exec "$@"
"""

_NS = 10**9
_RUN_TIME_VARIABLE = re.compile(r"\$(?:\{(PORT|SHOAL_[A-Z0-9_]+)\}|(PORT|SHOAL_[A-Z0-9_]+)\b)")


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of what a service refers to; `secrets` is by the name of the Swarm secret."""

    network: str
    start_script: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A Swarm secret as a file of a container."""

    name: str  # of the Swarm secret
    file: str
    as_env: bool = False


def private_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Those that hold credentials: they reach the container as secrets, so that no object shows them."""
    return {name: value for name, value in environment.items() if re.search(r"://[^/@\s]*:[^/@\s]*@", value)}


def secret_files(fleet: str, template: Template, private: Mapping[str, str]) -> tuple[SecretFile, ...]:
    """The files of one revision; `private` is by variable the name of the Swarm secret that holds it."""
    own = tuple(SecretFile(secret_name(fleet, use.name, use.digest), use.name, use.as_env) for use in template.secrets)
    return own + tuple(SecretFile(name, variable, as_env=True) for variable, name in sorted(private.items()))


def render_revision(
    fleet: str,
    action: EnsureRevision,
    ids: Ids,
    image: str,
    argv: Sequence[str] | None,
    files: Sequence[SecretFile],
    user: str = NOBODY,
) -> Spec:
    """The service of a revision, with no replica. `argv` is the command where the image's own is not meant; it has to
    be given where something has to be done before it (`needs_start`). Raises EngineError."""
    template = action.template
    labels = fleet_labels(fleet, Role.REVISION, agent=action.agent, revision=action.revision)
    if template.port is not None:
        labels[names.PORT] = str(template.port)
    if template.stateful:
        labels[names.STATEFUL] = "1"
    if template.resources.memory_bytes is not None:
        labels[names.MEMORY] = str(template.resources.memory_bytes)
    if template.resources.gpu:
        labels[names.GPUS] = str(template.resources.gpu)
    environment = _environment(action, files)
    spec: Spec = {
        "Name": object_name(fleet, action.agent, action.revision),
        "Labels": labels,
        "Mode": {"Replicated": {"Replicas": 0}},
        "EndpointSpec": {"Mode": "dnsrr"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": image,
                "Labels": {**labels, names.HEALTH: _health(template)},
                "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
                "User": user,
                "Init": True,
                "ReadOnly": template.read_only,
                "CapabilityDrop": ["ALL"],
                "Privileges": {"NoNewPrivileges": True},
                "Healthcheck": {"Test": ["NONE"]},  # Shoal's own checks are the file's
                "StopGracePeriod": int(template.stop_grace_period_s * _NS),
                "Mounts": _mounts(fleet, template),
                "Secrets": [_secret(each, ids, user) for each in files],
                **_command(fleet, action, environment, argv, ids, files),
            },
            "Resources": _resources(template),
            "RestartPolicy": {"Condition": "any", "Delay": int(RESTART_DELAY_S * _NS)},
            "Placement": _placement(template),
            "Networks": [{"Target": ids.network}],
            "ForceUpdate": 0,
        },
    }
    if template.cap_add:
        spec["TaskTemplate"]["ContainerSpec"]["CapabilityAdd"] = list(template.cap_add)
    if template.working_dir is not None:
        spec["TaskTemplate"]["ContainerSpec"]["Dir"] = template.working_dir
    return spec


def render_ordinal(fleet: str, revision: Spec, ordinal: int, node: str | None) -> Spec:
    """The service of one identity at a revision, with its replica. `node`: the id of the node that has its volumes;
    before the first start that is for Swarm to choose."""
    spec = copy.deepcopy(revision)
    agent, number = spec["Labels"][names.AGENT], str(ordinal)
    spec["Name"] = object_name(fleet, agent, number)
    spec["Mode"] = {"Replicated": {"Replicas": 1}}
    task = spec["TaskTemplate"]
    container = task["ContainerSpec"]
    for labels in (spec["Labels"], container["Labels"]):
        labels |= {names.ROLE: Role.ORDINAL.value, names.ORDINAL: number}
    container["Env"] = [
        *(each for each in container["Env"] if not each.startswith(("SHOAL_REPLICA=", "SHOAL_ORDINAL="))),
        f"SHOAL_ORDINAL={number}",
        f"SHOAL_REPLICA={agent}-{number}.{_TASK}",
    ]
    for mount in container["Mounts"]:
        if mount["Type"] == "volume":
            mount["Source"] = f"{mount['Source']}_{number}"
    if node is not None:
        placement = task.setdefault("Placement", {})  # what is empty, Docker leaves out
        placement["Constraints"] = [*placement.get("Constraints", ()), f"node.id=={node}"]
    return spec


def render_run(fleet: str, revision: Spec, action: RunJob, started_at: float) -> Spec:
    """The service of one run of a job. Its attempts are Swarm's; the node's agent ends one at its timeout."""
    spec = copy.deepcopy(revision)
    spec["Name"] = object_name(fleet, action.run_id)
    spec["Mode"] = {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}
    spec["Labels"] |= {
        names.ROLE: Role.RUN.value,
        names.RUN: action.run_id,
        names.RETRIES: str(action.retries),
        names.STARTED: f"{started_at:.3f}",
    }
    task = spec["TaskTemplate"]
    task["ContainerSpec"]["Labels"] |= {names.ROLE: Role.RUN.value, names.RUN: action.run_id}
    if action.timeout_s is not None:
        grace_s = task["ContainerSpec"]["StopGracePeriod"] / _NS
        task["ContainerSpec"]["Labels"][names.TIMEOUT] = render_deadline(action.timeout_s, grace_s)
    task["ContainerSpec"]["Env"] = [
        *(each for each in task["ContainerSpec"]["Env"] if not each.startswith("SHOAL_REPLICA=")),
        f"SHOAL_REPLICA={action.run_id}",
        f"SHOAL_RUN={action.run_id}",
    ]
    policy = {"Condition": "on-failure", "Delay": int(RESTART_DELAY_S * _NS), "MaxAttempts": action.retries}
    task["RestartPolicy"] = policy if action.retries else {"Condition": "none"}
    return spec


def render_deadline(after_s: float, grace_s: float) -> str:
    """What a node's agent reads of a container: when to end it, and how long that may take."""
    return json.dumps({"after_s": after_s, "grace_s": grace_s}, sort_keys=True)


def needs_start(template: Template, files: Sequence[SecretFile]) -> bool:
    """Whether something has to be done in the container before its command, so that a shell has to be there."""
    return template.resources.gpu > 0 or any(each.as_env for each in files)


# Docker puts the task's id in when it makes the container: as many of its letters as `names.replica_id` shows.
_TASK = '{{printf "%.10s" .Task.ID}}'


def _environment(action: EnsureRevision, files: Sequence[SecretFile]) -> dict[str, str]:
    template = action.template
    hidden = {each.file for each in files if each.as_env}
    environment = {"PYTHONUNBUFFERED": "1"}
    if not template.resources.gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    environment |= template.environment
    environment |= {name: value for name, value in action.environment.items() if name not in hidden}
    environment["SHOAL_REPLICA"] = f"{action.agent}-{_TASK}"
    if template.port is not None:
        environment["PORT"] = str(template.port)
    if template.secrets:
        environment["SHOAL_SECRETS"] = SECRETS_DIRECTORY
    if hidden:
        environment |= {"SHOAL_SECRETS": SECRETS_DIRECTORY, "SHOAL_SECRET_VARIABLES": " ".join(sorted(hidden))}
    for text in template.volumes:
        volume = parse_volume(text)
        environment[volume.variable] = volume.path
    for text in template.tmpfs:
        each = parse_tmpfs(text)
        environment[each.variable] = each.path
    return environment


def _command(
    fleet: str,
    action: EnsureRevision,
    environment: Mapping[str, str],
    argv: Sequence[str] | None,
    ids: Ids,
    files: Sequence[SecretFile],
) -> Spec:
    template = action.template
    words = [_put_in(word, template, environment) for word in argv] if argv is not None else None
    if not needs_start(template, files):
        return {"Command": words} if words is not None else {}
    if words is None:
        raise EngineError(
            f"agents.{template.agent}.command: missing; a GPU, a queue and a secret with `as: env` are given to it by "
            "a script that starts the command, so write the command of the image here"
        )
    script = {
        "File": {"Name": START_PATH, "UID": "0", "GID": "0", "Mode": 0o444},
        "ConfigID": ids.start_script,
        "ConfigName": start_script_name(fleet),
    }
    return {"Command": ["/bin/sh", START_PATH, *words], "Configs": [script]}


def start_script_name(fleet: str) -> str:
    """The config that holds START_SCRIPT, by its content."""
    return object_name(fleet, "shoal-start", hashlib.sha256(START_SCRIPT.encode()).hexdigest()[:12])


def _put_in(word: str, template: Template, environment: Mapping[str, str]) -> str:
    """The word with `$PORT`, `${PORT}` and `$SHOAL_*` put in; every other `$` stays as it is."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in environment or _TASK in environment[name]:
            raise EngineError(
                f"agents.{template.agent}.command: ${name} is not known before a replica starts; on Swarm a program "
                "reads it from its environment"
            )
        return environment[name]

    return _RUN_TIME_VARIABLE.sub(value, word)


def _health(template: Template) -> str:
    """What the node's agent probes, for those that have a port."""
    if template.kind is not Kind.SERVICE:
        return ""
    probe = {
        "port": template.port,
        "protocol": template.protocol,
        "grace_s": template.stop_grace_period_s,
        **template.health.model_dump(mode="json"),
    }
    return json.dumps(probe, sort_keys=True)


def _mounts(fleet: str, template: Template) -> list[Spec]:
    mounts: list[Spec] = []
    for text in template.volumes:
        volume = parse_volume(text)
        if volume.bound and not volume.source.startswith("/"):
            raise EngineError(
                f"agents.{template.agent}.volumes: found {text}; on Swarm a directory of the host is one of the node "
                "that a replica happens to run on, so write its absolute path there, or a volume's name"
            )
        mount: Spec = {"Target": volume.path, "ReadOnly": volume.read_only}
        if volume.bound:
            mount |= {"Type": "bind", "Source": volume.source}
        else:
            labels = fleet_labels(fleet, Role.VOLUME)  # by which `down --volumes` finds it on its node
            source = object_name(fleet, volume.source)
            mount |= {"Type": "volume", "Source": source, "VolumeOptions": {"Labels": labels}}
        mounts.append(mount)
    in_memory = [parse_tmpfs(text) for text in template.tmpfs]
    taken = {mount["Target"] for mount in mounts} | {each.path for each in in_memory}
    mounts += [_in_memory(each.path, each.size_bytes) for each in in_memory]
    if "/tmp" not in taken:
        mounts.append(_in_memory("/tmp", None))
    if template.shm_size_bytes is not None:
        mounts.append(_in_memory("/dev/shm", template.shm_size_bytes))
    return mounts


def _in_memory(path: str, size_bytes: int | None) -> Spec:
    options: Spec = {"Mode": 0o1777}
    if size_bytes is not None:
        options["SizeBytes"] = size_bytes
    return {"Type": "tmpfs", "Target": path, "TmpfsOptions": options}


def _secret(each: SecretFile, ids: Ids, user: str) -> Spec:
    if each.name not in ids.secrets:
        raise EngineError(
            f"the secret {each.file} has no content in this fleet any more; give it one by `shoal secret set "
            f"{each.file}`, or from its source by `shoal up`"
        )
    uid, _, gid = user.partition(":")
    known = uid.isdigit()  # a name means something in the image alone
    file = {"UID": uid if known else "0", "GID": gid if gid.isdigit() else "0", "Mode": 0o400 if known else 0o444}
    return {
        "File": {"Name": each.file, **file},
        "SecretID": ids.secrets[each.name],
        "SecretName": each.name,
    }


def _placement(template: Template) -> Spec:
    wanted = template.placement
    placement: Spec = {"Constraints": [f"node.labels.{k}=={v}" for k, v in sorted(wanted.require.items())]}
    if wanted.spread is not None:
        placement["Preferences"] = [{"Spread": {"SpreadDescriptor": f"node.labels.{wanted.spread}"}}]
    if wanted.max_per_node is not None:
        placement["MaxReplicas"] = wanted.max_per_node
    return placement


def _resources(template: Template) -> Spec:
    asked = template.resources
    reserved: Spec = {}
    limits: Spec = {"Pids": MOST_PIDS}
    if asked.cpu is not None:
        reserved["NanoCPUs"] = int(asked.cpu * _NS)
    if asked.memory_bytes is not None:
        reserved["MemoryBytes"] = limits["MemoryBytes"] = asked.memory_bytes
    if asked.gpu:
        reserved["GenericResources"] = [{"DiscreteResourceSpec": {"Kind": GPU_KIND, "Value": asked.gpu}}]
    return {"Limits": limits, "Reservations": reserved}
