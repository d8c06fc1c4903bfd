"""Agents as Swarm services, asserted as the values that the Docker Engine API is sent."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from shoal.core.action import EnsureRevision, RunJob
from shoal.core.revision import revision_of, template_of
from shoal.engines.swarm.names import LONGEST, object_name, replica_id
from shoal.engines.swarm.render import (
    Ids,
    Spec,
    needs_start,
    private_variables,
    render_ordinal,
    render_revision,
    render_run,
    secret_files,
    start_script_name,
)
from shoal.errors import EngineError
from shoal.spec.model import Fleet

SECRETS = {"KEY": "0123456789abcdef", "PLAIN": "fedcba9876543210"}


def ensure(agent: dict[str, Any], environment: dict[str, str] | None = None) -> EnsureRevision:
    """The action for one agent of a fleet `shop`."""
    fleet = Fleet.model_validate({"fleet": "shop", "agents": {"web": {"image": "acme/web:1", **agent}}})
    template = template_of(fleet, "web", SECRETS)
    return EnsureRevision("web", revision_of(template), template, environment or {})


def render(agent: dict[str, Any], environment: dict[str, str] | None = None) -> Spec:
    """Its service, with ids for whatever it refers to."""
    action = ensure(agent, environment)
    private = {name: f"shop_{name}" for name in private_variables(action.environment)}
    files = secret_files("shop", action.template, private)
    ids = Ids("net1", "config1", {each.name: f"id-of-{each.name}" for each in files})
    return render_revision("shop", action, ids, "acme/web:1", action.template.command, files)


def env_of(spec: Spec) -> dict[str, str]:
    """Its variables."""
    return dict(each.split("=", 1) for each in spec["TaskTemplate"]["ContainerSpec"]["Env"])


def test_a_service() -> None:
    """All of a plain agent's service: hardened, empty, on the fleet's network by names rather than by a virtual
    address."""
    spec = render({"command": ["serve", "--port", "$PORT"], "port": 8000, "health": "/healthz",
                   "resources": {"cpu": "500m", "memory": "64Mi"}, "stop_grace_period": "20s",
                   "placement": {"require": {"disk": "ssd"}}, "working_dir": "/srv"})  # fmt: skip
    revision = spec["Labels"]["shoal.revision"]
    labels = {"shoal.fleet": "shop", "shoal.role": "revision", "shoal.agent": "web", "shoal.revision": revision,
              "shoal.port": "8000", "shoal.memory": "67108864"}  # fmt: skip
    container = spec["TaskTemplate"]["ContainerSpec"]
    health = container["Labels"].pop("shoal.health")
    assert spec == {
        "Name": f"shop_web_{revision}",
        "Labels": labels,
        "Mode": {"Replicated": {"Replicas": 0}},
        "EndpointSpec": {"Mode": "dnsrr"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "acme/web:1",
                "Labels": labels,
                "Env": [
                    "CUDA_VISIBLE_DEVICES=", "PORT=8000", "PYTHONUNBUFFERED=1",
                    'SHOAL_REPLICA=web-{{printf "%.10s" .Task.ID}}',
                ],
                "User": "65534:65534",
                "Init": True,
                "ReadOnly": True,
                "CapabilityDrop": ["ALL"],
                "Privileges": {"NoNewPrivileges": True},
                "Healthcheck": {"Test": ["NONE"]},
                "StopGracePeriod": 20_000_000_000,
                "Mounts": [{"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"Mode": 0o1777}}],
                "Secrets": [],
                "Command": ["serve", "--port", "8000"],
                "Dir": "/srv",
            },
            "Resources": {
                "Limits": {"Pids": 4096, "MemoryBytes": 64 * 2**20},
                "Reservations": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 * 2**20},
            },
            "RestartPolicy": {"Condition": "any", "Delay": 1_000_000_000},
            "Placement": {"Constraints": ["node.labels.disk==ssd"]},
            "Networks": [{"Target": "net1"}],
            "ForceUpdate": 0,
        },
    }  # fmt: skip
    assert '"path": "/healthz"' in health and '"port": 8000' in health


def test_an_image_may_say_its_own_command() -> None:
    """Without a command nothing is put in its place."""
    assert "Command" not in render({"port": 8000})["TaskTemplate"]["ContainerSpec"]


def test_secrets_are_files_and_variables_come_by_a_script() -> None:
    """Each is a file that only its reader may read; no object shows what one holds."""
    spec = render({"command": "serve", "port": 80, "secrets": ["PLAIN", {"name": "KEY", "as": "env"}]})
    container = spec["TaskTemplate"]["ContainerSpec"]
    file = {"UID": "65534", "GID": "65534", "Mode": 0o400}
    first, second = "shop_KEY_0123456789ab", "shop_PLAIN_fedcba987654"
    assert container["Secrets"] == [
        {"File": {"Name": "KEY", **file}, "SecretID": f"id-of-{first}", "SecretName": first},
        {"File": {"Name": "PLAIN", **file}, "SecretID": f"id-of-{second}", "SecretName": second},
    ]
    assert container["Command"] == ["/bin/sh", "/run/shoal/start", "serve"]
    (config,) = container["Configs"]
    assert (config["ConfigID"], config["ConfigName"]) == ("config1", start_script_name("shop"))
    assert env_of(spec)["SHOAL_SECRET_VARIABLES"] == "KEY" and env_of(spec)["SHOAL_SECRETS"] == "/run/secrets"


def test_credentials_of_a_broker_are_hidden() -> None:
    """A URL with a password is a secret, the rest of what Shoal adds are variables."""
    url = "nats://web:secret@shoal-broker:4222"
    spec = render({"command": "work", "queue": "tasks"}, {"SHOAL_QUEUE_TASKS_URL": url, "SHOAL_QUEUE": "tasks"})
    assert "secret@" not in str(spec) and env_of(spec)["SHOAL_QUEUE"] == "tasks"
    assert env_of(spec)["SHOAL_SECRET_VARIABLES"] == "SHOAL_QUEUE_TASKS_URL"


def test_a_gpu_is_a_generic_resource() -> None:
    """Swarm hands devices out; the script makes them visible."""
    spec = render({"command": "serve", "port": 80, "resources": {"gpu": 2}})
    reserved = spec["TaskTemplate"]["Resources"]["Reservations"]
    assert reserved["GenericResources"] == [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]
    assert spec["TaskTemplate"]["ContainerSpec"]["Command"][:2] == ["/bin/sh", "/run/shoal/start"]
    assert "CUDA_VISIBLE_DEVICES" not in env_of(spec)


def test_where_replicas_go() -> None:
    """All of it is Swarm's own."""
    placement = {"require": {"disk": "ssd"}, "spread": "zone", "max_per_node": 2}
    spec = render({"command": "serve", "port": 80, "placement": placement})
    assert spec["TaskTemplate"]["Placement"] == {
        "Constraints": ["node.labels.disk==ssd"],
        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
        "MaxReplicas": 2,
    }


def test_volumes_and_memory() -> None:
    """Where each is, and that its path is told; `/tmp` is the agent's where it says so."""
    spec = render({"command": "serve", "port": 80, "volumes": ["stock:/data:ro", "/models:/models"],
                   "tmpfs": ["/tmp:size=16Mi"], "shm_size": "1Gi"})  # fmt: skip
    assert spec["TaskTemplate"]["ContainerSpec"]["Mounts"] == [
        {
            "Type": "volume",
            "Source": "shop_stock",
            "Target": "/data",
            "ReadOnly": True,
            "VolumeOptions": {"Labels": {"shoal.fleet": "shop", "shoal.role": "volume"}},
        },
        {"Type": "bind", "Source": "/models", "Target": "/models", "ReadOnly": False},
        {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"Mode": 0o1777, "SizeBytes": 16 * 2**20}},
        {"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": {"Mode": 0o1777, "SizeBytes": 2**30}},
    ]
    assert env_of(spec)["SHOAL_VOLUME_STOCK"] == "/data" and env_of(spec)["SHOAL_TMPFS_TMP"] == "/tmp"


def test_rights_that_the_file_gives() -> None:
    """Only what it says: no capability but the one, and still no new privileges."""
    spec = render({"command": "serve", "port": 80, "user": "root", "cap_add": ["CAP_CHOWN"], "read_only": False})
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert (container["ReadOnly"], container["CapabilityDrop"], container["CapabilityAdd"]) == (
        False,
        ["ALL"],
        ["CHOWN"],
    )
    assert container["Privileges"] == {"NoNewPrivileges": True}


def test_a_directory_of_the_host_is_named_whole() -> None:
    """Beside the file there is nothing on a node."""
    with pytest.raises(EngineError, match=r"found \./models:/models; on Swarm a directory of the host"):
        render({"command": "serve", "port": 80, "volumes": ["./models:/models"]})


def test_a_variable_that_nobody_knows_yet() -> None:
    """The replica's name is the task's, which is not there when the command is written."""
    with pytest.raises(EngineError, match=r"\$SHOAL_REPLICA is not known before a replica starts"):
        render({"command": ["serve", "$SHOAL_REPLICA"], "port": 80})


def test_something_has_to_start_the_command() -> None:
    """With a variable from a secret and no command nobody knows what to start."""
    with pytest.raises(EngineError, match=r"agents\.web\.command: missing"):
        render({"port": 80, "secrets": [{"name": "KEY", "as": "env"}]})


def test_an_identity() -> None:
    """The same with a name, volumes and a place of its own."""
    base = render({"command": "serve", "port": 80, "stateful": True, "volumes": ["stock:/data"]})
    spec = render_ordinal("shop", base, 2, "node7")
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert (spec["Name"], spec["Mode"]) == ("shop_web_2", {"Replicated": {"Replicas": 1}})
    assert container["Mounts"][0]["Source"] == "shop_stock_2"
    assert env_of(spec)["SHOAL_ORDINAL"] == "2"
    assert env_of(spec)["SHOAL_REPLICA"] == 'web-2.{{printf "%.10s" .Task.ID}}'
    assert spec["TaskTemplate"]["Placement"]["Constraints"] == ["node.id==node7"]
    assert spec["Labels"]["shoal.role"] == container["Labels"]["shoal.role"] == "ordinal"
    assert base["Name"] != spec["Name"] and base["TaskTemplate"]["Placement"]["Constraints"] == []


def test_an_identity_of_a_revision_as_docker_gives_it_back() -> None:
    """Without what is empty."""
    base = render({"command": "serve", "port": 80, "stateful": True})
    for placement in ({}, {"Placement": {}}):
        kept = copy.deepcopy(base)
        del kept["TaskTemplate"]["Placement"]
        kept["TaskTemplate"] |= placement
        assert render_ordinal("shop", kept, 0, "n7")["TaskTemplate"]["Placement"] == {"Constraints": ["node.id==n7"]}


def test_a_run() -> None:
    """A job of one completion, tried again as often as it says."""
    base = render({"command": "fit", "schedule": "0 2 * * *"})
    spec = render_run("shop", base, RunJob("web", "r1", "web-20260101T020000", 60.0, 2), 1000.5)
    assert spec["Mode"] == {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}
    assert spec["TaskTemplate"]["RestartPolicy"] == {"Condition": "on-failure", "Delay": 10**9, "MaxAttempts": 2}
    assert env_of(spec)["SHOAL_RUN"] == env_of(spec)["SHOAL_REPLICA"] == "web-20260101T020000"
    assert spec["Labels"]["shoal.started"] == "1000.500"
    labels = spec["TaskTemplate"]["ContainerSpec"]["Labels"]
    assert json.loads(labels["shoal.timeout"]) == {"after_s": 60.0, "grace_s": 10.0}
    once = render_run("shop", base, RunJob("web", "r1", "web-1"), 0.0)
    assert once["TaskTemplate"]["RestartPolicy"] == {"Condition": "none"}
    assert "shoal.timeout" not in once["TaskTemplate"]["ContainerSpec"]["Labels"]


def test_names_part_and_end() -> None:
    """No two fleets meet in a name, and a long one still says whose it is."""
    assert object_name("a-b", "c") != object_name("a", "b-c")
    first, second = object_name("f" * 40, "a" * 40, "1"), object_name("f" * 40, "a" * 40, "2")
    assert len(first) == len(second) == LONGEST and first != second and first.startswith("f" * 40)
    assert replica_id("web", "abcdefghijklmno", None) == "web-abcdefghij"


@pytest.mark.parametrize(
    ("agent", "needed"),
    [({"port": 80}, False), ({"port": 80, "secrets": ["PLAIN"]}, False), ({"port": 80, "resources": {"gpu": 1}}, True)],
)
def test_who_needs_a_shell(agent: dict[str, Any], needed: bool) -> None:
    """Only who is given something before the command."""
    template = ensure(agent).template
    assert needs_start(template, secret_files("shop", template, {})) is needed
