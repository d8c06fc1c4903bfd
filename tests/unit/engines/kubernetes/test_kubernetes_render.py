"""Agents as objects of Kubernetes, asserted as the values that the API server is sent."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from shoal.core.action import EnsureRevision, RunJob
from shoal.core.revision import revision_of, template_of
from shoal.engines.kubernetes.names import LONGEST, object_name, secret_name
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
from shoal.engines.kubernetes.render_pod import leave_lost_node, private_variables
from shoal.engines.kubernetes.stateful import Ordinals
from shoal.errors import EngineError
from shoal.spec.model import Fleet

Object = dict[str, Any]

SECRETS = {"KEY": "0123456789abcdef", "PLAIN": "fedcba9876543210"}
BROKER_URL = "nats://web:hunter2@shoal-broker:4222"


def ensure(agent: Object, environment: dict[str, str] | None = None) -> EnsureRevision:
    """The action for one agent of a fleet `shop`."""
    fleet = Fleet.model_validate({"fleet": "shop", "agents": {"web": {"image": "acme/web:1", **agent}}})
    template = template_of(fleet, "web", SECRETS)
    return EnsureRevision("web", revision_of(template), template, environment or {})


def objects(agent: Object, environment: dict[str, str] | None = None, settings: Settings | None = None) -> list[Object]:
    """What makes its revision known."""
    action = ensure(agent, environment)
    private = private_variables("web", action.environment, "revision")
    return render_revision("shop", action, private, settings or Settings())


def pod_of(agent: Object, environment: dict[str, str] | None = None) -> Object:
    """The spec of its pods."""
    *_, last = objects({"command": "serve", **agent}, environment)
    pod = last["spec"]["template"] if last["kind"] == "Deployment" else read_template(last)["pod"]
    return pod["spec"]


def container_of(agent: Object, environment: dict[str, str] | None = None) -> Object:
    return pod_of(agent, environment)["containers"][0]


def values_of(container: Object) -> dict[str, str]:
    """Its variables that are known before it starts."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def test_a_service() -> None:
    """All of a plain agent's Deployment: empty, by no rollout of its own, and what *restricted* asks for."""
    (deployment,) = objects({
        "command": ["serve", "--port", "$PORT"], "port": 8000, "health": "/healthz",
        "resources": {"cpu": "500m", "memory": "64Mi"}, "stop_grace_period": "20s", "working_dir": "/srv",
    })  # fmt: skip
    revision = deployment["metadata"]["labels"]["shoal.dev/revision"]
    labels = {
        "app.kubernetes.io/managed-by": "shoal", "app.kubernetes.io/part-of": "shop", "app.kubernetes.io/name": "web",
        "shoal.dev/fleet": "shop", "shoal.dev/role": "revision", "shoal.dev/agent": "web",
        "shoal.dev/revision": revision,
    }  # fmt: skip
    own = {"shoal.dev/agent": "web", "shoal.dev/revision": revision}
    asks = {"httpGet": {"path": "/healthz", "port": "agent"}, "timeoutSeconds": 2}
    assert deployment == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"web-{revision}", "labels": labels, "annotations": {"shoal.dev/port": "8000"}},
        "spec": {
            "replicas": 0,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": 2**31 - 1,
            "selector": {"matchLabels": own},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": "shoal-agent",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "shareProcessNamespace": True,
                    "securityContext": {
                        "runAsNonRoot": True, "runAsUser": 65534, "runAsGroup": 65534, "fsGroup": 65534,
                        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "terminationGracePeriodSeconds": 22,
                    "containers": [
                        {
                            "name": "agent",
                            "image": "acme/web:1",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["serve", "--port", "$(PORT)"],
                            "workingDir": "/srv",
                            "env": [
                                {"name": "CUDA_VISIBLE_DEVICES", "value": ""},
                                {"name": "PORT", "value": "8000"},
                                {"name": "PYTHONUNBUFFERED", "value": "1"},
                                {
                                    "name": "SHOAL_REPLICA",
                                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                                },
                            ],
                            "ports": [{"name": "agent", "containerPort": 8000}],
                            "resources": {
                                "requests": {"cpu": "500m", "memory": "67108864"}, "limits": {"memory": "67108864"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "readinessProbe": {**asks, "periodSeconds": 1, "failureThreshold": 6},
                            "livenessProbe": {
                                **asks, "periodSeconds": 2, "failureThreshold": 15, "initialDelaySeconds": 30,
                            },
                            "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [{"name": "shoal-memory-0", "mountPath": "/tmp"}],
                        }
                    ],
                    "volumes": [{"name": "shoal-memory-0", "emptyDir": {"medium": "Memory"}}],
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": {"shoal.dev/agent": "web"}},
                            "matchLabelKeys": ["shoal.dev/revision"],
                        }
                    ],
                    "tolerations": leave_lost_node(),
                },
            },
        },
    }  # fmt: skip


def test_an_image_says_its_own_command() -> None:
    """Without a command nothing is put in its place; without an image there is nothing to run."""
    (deployment,) = objects({"port": 8000})
    assert "command" not in deployment["spec"]["template"]["spec"]["containers"][0]
    with pytest.raises(EngineError, match=r"agents\.web\.image: missing"):
        objects({"command": "serve", "port": 80, "image": None})


def test_secrets_are_files_and_variables() -> None:
    """Each is a file that the container's group may read; a variable comes from the same Secret."""
    pod = pod_of({"port": 80, "secrets": ["PLAIN", {"name": "KEY", "as": "env"}]})
    container = pod["containers"][0]
    key, plain = (secret_name(name, SECRETS[name]) for name in ("KEY", "PLAIN"))
    assert pod["volumes"][-1] == {
        "name": "shoal-secrets",
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {"secret": {"name": key, "items": [{"key": "KEY", "path": "KEY"}]}},
                {"secret": {"name": plain, "items": [{"key": "PLAIN", "path": "PLAIN"}]}},
            ],
        },
    }
    mount = {"name": "shoal-secrets", "mountPath": "/run/secrets/shoal", "readOnly": True}
    assert mount in container["volumeMounts"] and values_of(container)["SHOAL_SECRETS"] == "/run/secrets/shoal"
    assert {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": key, "key": "KEY"}}} in container["env"]
    assert "PLAIN" not in {each["name"] for each in container["env"]}


def test_a_secret_without_content() -> None:
    """There is no object that could hold it."""
    with pytest.raises(EngineError, match=r"the secret LOST has no content .*shoal secret set LOST"):
        pod_of({"port": 80, "secrets": ["LOST"]})


def test_credentials_of_a_broker_are_in_a_secret() -> None:
    """The rest of what Shoal adds are variables that anybody may see."""
    told = {"SHOAL_QUEUE_TASKS_URL": BROKER_URL, "SHOAL_QUEUE": "tasks"}
    secret = render_wiring_secret("shop", "web", private_variables("web", told, "revision"))
    (deployment,) = objects({"command": "work", "queue": "tasks"}, told)
    assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", "web-wiring-revision")
    assert secret["data"] == {"SHOAL_QUEUE_TASKS_URL": base64.b64encode(BROKER_URL.encode()).decode()}
    assert "hunter2" not in json.dumps(deployment)
    template = deployment["spec"]["template"]
    container = template["spec"]["containers"][0]
    reference = {"secretKeyRef": {"name": "web-wiring-revision", "key": "SHOAL_QUEUE_TASKS_URL"}}
    assert {"name": "SHOAL_QUEUE_TASKS_URL", "valueFrom": reference} in container["env"]
    assert values_of(container)["SHOAL_QUEUE"] == "tasks"
    assert template["metadata"]["labels"]["shoal.dev/uses-broker"] == "1"


@pytest.mark.parametrize(
    ("word", "given"),
    [
        ("$PORT", "$(PORT)"),
        (":${PORT}/$SHOAL_REPLICA", ":$(PORT)/$(SHOAL_REPLICA)"),
        ("$(PORT)", "$$(PORT)"),
        ("echo $$ $HOME", "echo $$$$ $$HOME"),
        ("$PORTS", "$$PORTS"),
        ("costs 5$", "costs 5$$"),
    ],
)
def test_what_of_a_command_is_put_in(word: str, given: str) -> None:
    """The variables of Shoal, by Kubernetes; every other `$` reaches the program as it is, two of them too."""
    assert container_of({"command": ["serve", word], "port": 80})["command"][1] == given


def test_a_variable_that_the_agent_is_not_given() -> None:
    with pytest.raises(EngineError, match=r"\$SHOAL_ORDINAL is not a variable .* it has PORT, SHOAL_REPLICA"):
        pod_of({"command": ["serve", "$SHOAL_ORDINAL"], "port": 80})


@pytest.mark.parametrize(("value", "given"), [("$(PORT)", "$$(PORT)"), ("a$$b", "a$$$$b"), ("$HOME", "$$HOME")])
def test_an_environment_is_what_the_file_says(value: str, given: str) -> None:
    """Kubernetes puts nothing in."""
    assert values_of(container_of({"port": 80, "environment": {"A": value}}))["A"] == given


def test_the_users_variables_do_not_reach_shoals() -> None:
    """What Shoal says of a replica holds."""
    told = values_of(container_of({"port": 80, "environment": {"PORT": "1", "CUDA_VISIBLE_DEVICES": "7"}}))
    assert (told["PORT"], told["CUDA_VISIBLE_DEVICES"]) == ("80", "7")


def test_volumes_and_memory() -> None:
    """Where each is, and that its path is told; `/tmp` is the agent's where it says so. No name of a volume is one of
    Shoal's."""
    agent = {"command": "serve", "port": 80, "volumes": ["secrets:/data:ro", "/models:/models"],
             "tmpfs": ["/tmp:size=16Mi"], "shm_size": "1Gi", "secrets": ["KEY"]}  # fmt: skip
    claim, deployment = objects(agent, settings=Settings(storage_class="fast", storage="3Gi"))
    assert (claim["kind"], claim["metadata"]["name"]) == ("PersistentVolumeClaim", "secrets")
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "3Gi"}}, "storageClassName": "fast",
    }  # fmt: skip
    pod = deployment["spec"]["template"]["spec"]
    assert pod["volumes"][:-1] == [
        {"name": "secrets", "persistentVolumeClaim": {"claimName": "secrets"}},
        {"name": "shoal-host-1", "hostPath": {"path": "/models"}},
        {"name": "shoal-memory-0", "emptyDir": {"medium": "Memory", "sizeLimit": str(16 * 2**20)}},
        {"name": "shoal-memory-1", "emptyDir": {"medium": "Memory", "sizeLimit": str(2**30)}},
    ]
    assert len({volume["name"] for volume in pod["volumes"]}) == 5
    container = pod["containers"][0]
    assert container["volumeMounts"][:-1] == [
        {"name": "secrets", "mountPath": "/data", "readOnly": True},
        {"name": "shoal-host-1", "mountPath": "/models"},
        {"name": "shoal-memory-0", "mountPath": "/tmp"},
        {"name": "shoal-memory-1", "mountPath": "/dev/shm"},
    ]
    told = values_of(container)
    assert (told["SHOAL_VOLUME_SECRETS"], told["SHOAL_VOLUME_MODELS"]) == ("/data", "/models")
    assert told["SHOAL_TMPFS_TMP"] == "/tmp"


def test_two_volumes_are_two_claims() -> None:
    """Although Kubernetes knows no underscore."""
    first, second = (objects({"port": 80, "volumes": [f"{name}:/data"]})[0] for name in ("a_b", "a-b"))
    assert first["metadata"]["name"] != second["metadata"]["name"] == "a-b"


def test_a_directory_of_the_host_is_named_whole() -> None:
    """Beside the file there is nothing on a node."""
    with pytest.raises(EngineError, match=r"found \./models:/models; on Kubernetes a directory of the host"):
        pod_of({"port": 80, "volumes": ["./models:/models"]})


def test_rights_that_the_file_gives() -> None:
    """Only what it says: no capability but the one, and still no new privileges."""
    pod = pod_of({"port": 80, "user": "0:7", "cap_add": ["CAP_CHOWN"], "read_only": False})
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": False,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
    }
    context = pod["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (False, 0, 7)
    assert pod_of({"port": 80, "user": "1000"})["securityContext"]["runAsGroup"] == 1000
    with pytest.raises(EngineError, match=r"agents\.web\.user: found root; .* such as 1000:1000"):
        pod_of({"port": 80, "user": "root"})


def test_gpus() -> None:
    """The device plugin's; its nodes may be kept for who asks for some. Without one no device is seen."""
    pod = pod_of({"port": 80, "resources": {"gpu": 2, "cpu": 0.28}})
    assert pod["containers"][0]["resources"] == {"requests": {"cpu": "280m"}, "limits": {"nvidia.com/gpu": "2"}}
    assert pod["tolerations"][0] == {"key": "nvidia.com/gpu", "operator": "Exists"}
    assert "CUDA_VISIBLE_DEVICES" not in values_of(pod["containers"][0])


def test_where_replicas_go() -> None:
    """All of it is Kubernetes' own. Those of one version are counted, so that the next one finds room beside it, and
    stands as evenly once it is alone."""
    pod = pod_of({
        "port": 80,
        "placement": {"require": {"disk": "ssd"}, "prefer": {"zone": "a"}, "spread": "rack", "max_per_node": 2},
    })  # fmt: skip
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"][0] == {"key": "disk", "operator": "Equal", "value": "ssd"}
    assert pod["affinity"] == {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 10,
                    "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                }
            ]
        }
    }
    own = {"labelSelector": {"matchLabels": {"shoal.dev/agent": "web"}}, "matchLabelKeys": ["shoal.dev/revision"]}
    assert pod["topologySpreadConstraints"] == [
        {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway", **own},
        {
            "maxSkew": 2, "minDomains": 2**31 - 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule", **own,
        },
    ]  # fmt: skip


def test_who_leaves_a_node_that_is_lost() -> None:
    """A replica like any other soon comes elsewhere; an identity, and the run of a job, wait for their node."""
    lost = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20}
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    assert pod_of({"port": 80})["tolerations"] == [{"key": key, **lost} for key in keys]
    assert "tolerations" not in pod_of({"port": 80, "stateful": True})
    assert "tolerations" not in pod_of({"schedule": "0 2 * * *"})


@pytest.mark.parametrize(
    ("agent", "asks"),
    [
        ({"health": "/ok"}, {"httpGet": {"path": "/ok", "port": "agent"}}),
        ({}, {"tcpSocket": {"port": "agent"}}),
        ({"health": "/ok", "protocol": "grpc"}, {"tcpSocket": {"port": "agent"}}),
    ],
)
def test_how_a_replica_is_asked(agent: Object, asks: Object) -> None:
    """Where it does not say how, or speaks no HTTP/1, a connection has to be enough."""
    container = container_of({"port": 80, **agent})
    for probe in ("readinessProbe", "livenessProbe"):
        assert asks.items() <= container[probe].items()


PORT = {"tcpSocket": {"port": "agent"}, "timeoutSeconds": 1}


def test_probes_are_of_whole_seconds() -> None:
    health = {"interval": "1500ms", "timeout": "200ms", "retries": 4, "start_period": "90500ms"}
    container = container_of({"port": 80, "health": health})
    assert container["readinessProbe"] == {**PORT, "periodSeconds": 1, "failureThreshold": 8}
    alive = {**PORT, "periodSeconds": 2, "failureThreshold": 20, "initialDelaySeconds": 51}
    assert container["livenessProbe"] == alive


@pytest.mark.parametrize(
    ("health", "starts", "ready", "alive"),
    [
        ({"start_period": "29s"}, 29, (2, 3), (2, 15)),  # dead before what a replica's end takes
        ({"interval": "3s"}, 60, (3, 3), (3, 15)),  # not to be asked every second
    ],
)
def test_who_has_a_startup_probe(health: Object, starts: int, ready: tuple[int, int], alive: tuple[int, int]) -> None:
    """Else who does not answer by the end of `start_period` fails by being dead: `initialDelaySeconds` and as many
    misses as that takes."""
    container = container_of({"port": 80, "health": {"timeout": "1s", **health}})

    def probe(period: int, threshold: int) -> Object:
        return {**PORT, "periodSeconds": period, "failureThreshold": threshold}

    assert container["startupProbe"] == probe(1, starts)
    assert (container["readinessProbe"], container["livenessProbe"]) == (probe(*ready), probe(*alive))
    assert "startupProbe" not in container_of({"port": 80, "health": {"start_period": "30s"}})


def test_a_worker_is_not_asked() -> None:
    """It has no port, and nobody has to learn that it leaves."""
    pod = pod_of({"queue": "tasks", "stop_grace_period": "5s"})
    container = pod["containers"][0]
    assert not {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"} & set(container)
    assert pod["terminationGracePeriodSeconds"] == 5


def test_secrets_with_which_images_are_pulled() -> None:
    (deployment,) = objects({"port": 80}, settings=Settings(pulls=("ghcr",)))
    assert deployment["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "ghcr"}]


def stateful(**agent: Any) -> tuple[Object, str]:
    """The template of a stateful agent as its ConfigMap keeps it, and its revision."""
    *_, kept = objects({"command": "serve", "port": 80, "stateful": True, **agent})
    assert kept["kind"] == "ConfigMap"
    return read_template(kept), kept["metadata"]["labels"]["shoal.dev/revision"]


def test_identities() -> None:
    """One StatefulSet; each replica is told who it is, and has a claim of its own."""
    template, revision = stateful(volumes=["stock:/data"])
    made = render_stateful("shop", "web", template, Ordinals(("old", "old", revision), revision))
    spec = made["spec"]
    assert (made["metadata"]["name"], spec["replicas"], spec["serviceName"]) == ("web", 3, "web")
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    assert spec["podManagementPolicy"] == "Parallel"
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "stock"
    pod = spec["template"]["spec"]
    assert "stock" not in {volume["name"] for volume in pod["volumes"]}
    assert {"name": "stock", "mountPath": "/data"} in pod["containers"][0]["volumeMounts"]
    selector = spec["selector"]["matchLabels"]
    assert selector.items() <= spec["template"]["metadata"]["labels"].items()
    assert "shoal.dev/revision" not in selector, "it would belong to one of its revisions alone"
    env = pod["containers"][0]["env"]
    assert [each["name"] for each in env][:2] == ["SHOAL_POD_NAME", "SHOAL_POD_UID"], "those that others refer to"
    assert values_of(pod["containers"][0])["SHOAL_REPLICA"] == "$(SHOAL_POD_NAME).$(SHOAL_POD_UID)"
    ordinal = "metadata.labels['apps.kubernetes.io/pod-index']"
    assert {"name": "SHOAL_ORDINAL", "valueFrom": {"fieldRef": {"fieldPath": ordinal}}} in env


def test_claims_of_identities_stay_what_they_are() -> None:
    """The file may ask for larger ones by now, which Kubernetes would refuse; with other volumes they are others."""
    template, revision = stateful(volumes=["stock:/data"])
    ordinals = Ordinals((revision,), revision)
    there = [{"metadata": {"name": "stock"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]
    made = render_stateful("shop", "web", template, ordinals, there)
    assert made["spec"]["volumeClaimTemplates"] == there
    there[0]["metadata"]["name"] = "other"
    assert render_stateful("shop", "web", template, ordinals, there)["spec"]["volumeClaimTemplates"] != there


def test_identities_have_names() -> None:
    """Before they are ready too: they may look for each other first."""
    service = render_governing("shop", "web", 80)
    assert service["spec"] == {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"shoal.dev/agent": "web", "shoal.dev/role": "stateful"},
        "ports": [{"name": "agent", "port": 80}],
    }
    assert "ports" not in render_governing("shop", "web", None)["spec"]


def test_a_drain_takes_one_replica_at_a_time() -> None:
    """Of all revisions together, and no runs of a job, of which nobody knows how many there should be."""
    budget = render_budget("shop", "web")
    assert budget["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {
            "matchLabels": {"shoal.dev/agent": "web"},
            "matchExpressions": [{"key": "shoal.dev/role", "operator": "In", "values": ["revision", "stateful"]}],
        },
    }


def run(action: RunJob) -> Object:
    *_, kept = objects({"command": "fit", "schedule": "0 2 * * *"})
    return render_run("shop", read_template(kept), action, 1000.5)


def test_a_run() -> None:
    """A Job of one pod at a time, tried again as often as it says; each attempt may last as long as it says."""
    job = run(RunJob("web", "r1", "web-20260101t020000z", 60.2, 2))
    assert job["metadata"]["name"] == "web-20260101t020000z"
    assert job["metadata"]["annotations"] == {"shoal.dev/started": "1000.500", "shoal.dev/retries": "2"}
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (2, 1, 1)
    drained = {"type": "DisruptionTarget", "status": "True"}
    assert spec["podFailurePolicy"] == {"rules": [{"action": "Ignore", "onPodConditions": [drained]}]}
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["activeDeadlineSeconds"]) == ("Never", 61)
    assert spec["template"]["metadata"]["labels"]["shoal.dev/run"] == "web-20260101t020000z"
    told = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['shoal.dev/run']"}}}
    env = pod["containers"][0]["env"]
    assert {"name": "SHOAL_RUN", **told} in env and {"name": "SHOAL_REPLICA", **told} in env
    assert "activeDeadlineSeconds" not in run(RunJob("web", "r1", "web-1"))["spec"]["template"]["spec"]


def test_runs_do_not_change_what_they_are_made_from() -> None:
    *_, kept = objects({"command": "fit", "schedule": "0 2 * * *"})
    template = read_template(kept)
    before = json.dumps(template)
    render_run("shop", template, RunJob("web", "r1", "web-1", 5.0), 0.0)
    assert json.dumps(template) == before


def test_names_end() -> None:
    """A long one still says whose it is, and two of them differ; so do secrets of another content, or another name."""
    first, second = object_name("a" * 40, "b" * 40, "1"), object_name("a" * 40, "b" * 40, "2")
    assert len(first) == len(second) <= LONGEST and first != second and first.startswith("a" * 40)
    secrets = {secret_name(*each) for each in (("API_KEY", "0" * 64), ("API_KEY", "1" * 64), ("api-key", "0" * 64))}
    assert len(secrets) == 3 and all(re.fullmatch("api-key-[0-9a-f]{16}", each) for each in secrets)
