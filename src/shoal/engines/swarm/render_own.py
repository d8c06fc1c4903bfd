"""What Shoal itself runs on a Swarm, as values: controller, gateways, nodes' agents, the embedded broker.

All of one image, which is Shoal's. The gateways' networks never change, as that would start them anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.engines.swarm import names
from shoal.engines.swarm.names import Role, fleet_labels, own_name
from shoal.engines.swarm.render import Spec

CONTENT = "shoal.content"  # a hash of what was rendered: what differs is brought up to date
LINK_PORT = 7443
API_PORT = 7444
NODE_PORT = 7445
CALLS_PORT = 15001
BROKER_PORT = 4222
STATE_DIRECTORY = "/var/lib/shoal"
USER = "10001:10001"  # the image of Shoal has it
DOCKER_SOCKET = "/var/run/docker.sock"
TOKEN_FILE = "/run/secrets/join-token"
CA_KEY_FILE = "/run/secrets/ca-key"
SEED_FILE = "/run/secrets/seed"
CA_CERTIFICATE_FILE = "/run/shoal/ca.pem"
BROKER_FILE = "/run/secrets/nats.conf"
CONTENTS_DIRECTORY = "/run/shoal/contents"  # what the secrets of the fleet's agents hold

_NS = 10**9
_GATEWAY_GRACE_S = 15.0


@dataclass(frozen=True, slots=True)
class Own:
    """What all of it shares: `secrets` and `configs` are ids by what they are (`join-token`, `ca`), and by that too
    the names that Swarm has for them in `called`."""

    fleet: str
    image: str
    network: str
    secrets: Mapping[str, str] = field(default_factory=dict[str, str])
    configs: Mapping[str, str] = field(default_factory=dict[str, str])
    called: Mapping[str, str] = field(default_factory=dict[str, str])


def render_controller(own: Own, admin_port: int, contents: Mapping[str, str]) -> Spec:
    """One, on a manager; people reach it at `admin_port` of its node. It ends by itself with the fleet, and is then not
    started again. `contents` are the ids of the agents' secrets by Swarm's names for them: it opens brokers with them,
    and masks them."""
    spec = _service(
        own,
        Role.CONTROLLER,
        names.CONTROLLER_HOST,
        ["python3", "-m", "shoal.api", "--engine", "swarm", "--fleet", own.fleet],
        secrets=("ca-key", "join-token", "seed"),
        mounts=[_socket()],
        user="0:0",
    )
    container = spec["TaskTemplate"]["ContainerSpec"]
    container["Env"].append("SHOAL_TASK={{.Task.ID}}")
    container["Secrets"] += [
        {
            "File": {"Name": f"{CONTENTS_DIRECTORY}/{name}", "UID": "0", "GID": "0", "Mode": 0o400},
            "SecretID": key,
            "SecretName": name,
        }
        for name, key in sorted(contents.items())
    ]
    container["Configs"] = [
        {
            "File": {"Name": CA_CERTIFICATE_FILE, "UID": "0", "GID": "0", "Mode": 0o444},
            "ConfigID": own.configs["ca"],
            "ConfigName": own.called["ca"],
        }
    ]
    spec["Mode"] = {"Replicated": {"Replicas": 1}}
    spec["TaskTemplate"]["RestartPolicy"]["Condition"] = "on-failure"
    spec["TaskTemplate"]["Placement"] = {"Constraints": ["node.role==manager"]}
    spec["EndpointSpec"]["Ports"] = [_port(admin_port, API_PORT)]
    return _noted(spec)


def render_gateway(own: Own, port: int) -> Spec:
    """One on every node, at `port` of each. What it was last told lies in a volume of the node."""
    spec = _service(
        own,
        Role.GATEWAY,
        names.GATEWAY_HOST,
        [
            "python3", "-m", "shoal.proxy", "--state-dir", f"{STATE_DIRECTORY}/gateway",
            "--controller", f"{names.CONTROLLER_HOST}:{LINK_PORT}",
            "--join", f"https://{names.CONTROLLER_HOST}:{API_PORT}", "--join-token", TOKEN_FILE,
        ],
        secrets=("join-token",),
        mounts=[_volume(own, "gateway")],
        grace_s=_GATEWAY_GRACE_S,
    )  # fmt: skip
    spec["TaskTemplate"]["ContainerSpec"]["Hostname"] = "{{.Node.Hostname}}"  # its name among the gateways
    spec["EndpointSpec"]["Ports"] = [_port(port, port)]
    return _noted(spec)


def render_node(own: Own) -> Spec:
    """One on every node, with the node's Docker: it sees how the fleet's containers are. It joins at each start: its
    key is worth no place on a disk."""
    spec = _service(
        own,
        Role.NODE,
        names.NODE_HOST,
        [
            "python3", "-m", "shoal.engines.swarm.node", "--fleet", own.fleet, "--port", str(NODE_PORT),
            "--state-dir", "/tmp/node",
            "--join", f"https://{names.CONTROLLER_HOST}:{API_PORT}", "--join-token", TOKEN_FILE,
        ],
        secrets=("join-token",),
        mounts=[_socket()],
        user="0:0",
    )  # fmt: skip
    container = spec["TaskTemplate"]["ContainerSpec"]
    container["Hostname"] = "{{.Node.Hostname}}"
    # Where NVIDIA's runtime is the node's: it puts the driver's library in, by which GPUs are measured, and no device.
    container["Env"] = [*container.get("Env", ()), "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"]
    return _noted(spec)


def render_broker(own: Own, node: str | None) -> Spec:
    """The embedded broker, on the node that has its volume (by id; `None`: wherever Swarm likes at first)."""
    spec = _service(
        own,
        Role.BROKER,
        names.BROKER_HOST,
        ["python3", "-m", "shoal.engines.nats_server", BROKER_FILE],
        secrets=("nats.conf",),
        mounts=[_volume(own, "broker")],
        grace_s=30.0,
    )
    spec["Mode"] = {"Replicated": {"Replicas": 1}}
    spec = _noted(spec)
    if node is not None:
        spec["TaskTemplate"]["Placement"] = {"Constraints": [f"node.id=={node}"]}
    return spec


def render_sweep(own: Own) -> Spec:
    """Once on every node: the fleet's volumes go."""
    command = ["python3", "-m", "shoal.engines.swarm.node.sweep", own.fleet]
    spec = _service(own, Role.SWEEP, "shoal-sweep", command, secrets=(), mounts=[_socket()], user="0:0")
    spec["Mode"] = {"GlobalJob": {}}
    del spec["UpdateConfig"], spec["TaskTemplate"]["Networks"]
    spec["TaskTemplate"]["RestartPolicy"] = {"Condition": "none"}
    return spec


def _service(
    own: Own,
    role: Role,
    alias: str,
    command: Sequence[str],
    *,
    secrets: Sequence[str],
    mounts: list[Spec],
    user: str = USER,
    grace_s: float = 10.0,
) -> Spec:
    labels = fleet_labels(own.fleet, role)
    uid, _, gid = user.partition(":")
    return {
        "Name": own_name(own.fleet, role.value),
        "Labels": labels,
        "Mode": {"Global": {}},
        "EndpointSpec": {"Mode": "dnsrr"},
        "UpdateConfig": {"Parallelism": 1, "Order": "stop-first", "FailureAction": "pause"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": own.image,
                "Labels": labels,
                "Command": list(command),
                "Env": ["PYTHONUNBUFFERED=1"],
                "User": user,
                "Init": True,
                "ReadOnly": True,
                "CapabilityDrop": ["ALL"],
                "Privileges": {"NoNewPrivileges": True},
                "Healthcheck": {"Test": ["NONE"]},
                "StopGracePeriod": int(grace_s * _NS),
                "Mounts": [{"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"Mode": 0o1777}}, *mounts],
                "Secrets": [
                    {
                        "File": {"Name": name, "UID": uid, "GID": gid, "Mode": 0o400},
                        "SecretID": own.secrets[name],
                        "SecretName": own.called[name],
                    }
                    for name in secrets
                ],
            },
            "RestartPolicy": {"Condition": "any", "Delay": _NS // 2},
            "Networks": [{"Target": own.network, "Aliases": [alias]}],
            "ForceUpdate": 0,
        },
    }


def _noted(spec: Spec) -> Spec:
    content = json.dumps(spec, sort_keys=True)
    spec["Labels"] = {**spec["Labels"], CONTENT: hashlib.sha256(content.encode()).hexdigest()[:16]}
    return spec


def _port(published: int, target: int) -> dict[str, Any]:
    return {"Protocol": "tcp", "PublishedPort": published, "TargetPort": target, "PublishMode": "host"}


def _socket() -> Spec:
    return {"Type": "bind", "Source": DOCKER_SOCKET, "Target": DOCKER_SOCKET}


def _volume(own: Own, what: str) -> Spec:
    labels = fleet_labels(own.fleet, Role.VOLUME)
    return {
        "Type": "volume",
        "Source": own_name(own.fleet, what),
        "Target": STATE_DIRECTORY,
        "VolumeOptions": {"Labels": labels},
    }
