"""What Shoal itself runs in a fleet's namespace, as values: controller, gateways, the embedded broker.

All of one image, which is Shoal's, none of them root, and each with the rights that it needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal import __version__
from shoal.engines.kubernetes import names
from shoal.engines.kubernetes.names import BROKER, CONTROLLER, GATEWAY, Role, fleet_labels
from shoal.engines.kubernetes.render_pod import AGENTS_ACCOUNT, Object, leave_lost_node
from shoal.engines.kubernetes.render_pull import pulls_of
from shoal.spec.engine_options import KubernetesOptions
from shoal.spec.model import Fleet

LINK_PORT = 7443
API_PORT = 7444
PUBLIC_PORT = 8080
CALLS_PORT = 15001
BROKER_PORT = 4222
USER = 10001  # the image of Shoal has it
STATE_DIRECTORY = "/var/lib/shoal"
KEYS_DIRECTORY = "/run/shoal/keys"
JOIN_DIRECTORY = "/run/shoal/join"
BROKER_DIRECTORY = "/run/shoal/broker"
BROKER_CLAIM = "state"
KEYS, JOIN, ADMIN = "shoal-keys", "shoal-join", "shoal-admin"  # Secrets
CA_CERTIFICATE, CA_KEY, SEED, TOKEN = "ca.pem", "ca-key.pem", "seed", "token"

_GATEWAY_LEAVES_S = 3  # until the cluster's proxies have learned that it goes
_GATEWAY_GRACE_S = 15
OWN_CONTAINER = "shoal"  # of Shoal's own pods, the one that is not somebody else's addition
_ANY = {"app.kubernetes.io/managed-by": "shoal"}

CONTROLLERS_RULES: Sequence[Mapping[str, Sequence[str]]] = (
    {
        "apiGroups": ["apps"],
        "resources": ["deployments", "statefulsets"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {
        "apiGroups": ["autoscaling"],
        "resources": ["horizontalpodautoscalers"],
        "verbs": ["list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch", "create", "delete"]},
    {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create", "patch", "delete"]},
    {
        "apiGroups": [""],
        "resources": ["services"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
    {
        "apiGroups": ["policy"],
        "resources": ["poddisruptionbudgets"],
        "verbs": ["list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
    {"apiGroups": ["metrics.k8s.io"], "resources": ["pods"], "verbs": ["list"]},
)


@dataclass(frozen=True, slots=True)
class Own:
    """What all of it shares."""

    fleet: str
    namespace: str
    image: str
    options: KubernetesOptions
    pulls: Sequence[str] = ()

    @classmethod
    def of(cls, fleet: Fleet, namespace: str, image: str | None = None) -> Own:
        """Of one fleet; `image` is Shoal's where that is known better than the file says it."""
        found = image or fleet.kubernetes.image or f"shoal:{__version__}"
        return cls(fleet.fleet, namespace, found, fleet.kubernetes, pulls_of(fleet))


def render_namespace(fleet: str, namespace: str) -> Object:
    """With what its pods may be: they pass it, unless the file asks for more."""
    labels = fleet_labels(fleet, Role.FLEET) | {"pod-security.kubernetes.io/warn": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}


def render_accounts(own: Own) -> list[Object]:
    """Whom controller and agents are: what the one may, and that the others may nothing."""
    labels = fleet_labels(own.fleet, Role.CONTROLLER)
    rights = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": CONTROLLER}
    who = {"kind": "ServiceAccount", "name": CONTROLLER, "namespace": own.namespace}
    return [
        _account(CONTROLLER, labels),
        _account(AGENTS_ACCOUNT, fleet_labels(own.fleet, Role.FLEET)),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": CONTROLLER, "labels": labels},
            "rules": [dict(rule) for rule in CONTROLLERS_RULES],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": CONTROLLER, "labels": labels},
            "roleRef": rights,
            "subjects": [who],
        },
    ]


def _account(name: str, labels: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "labels": dict(labels)},
        "automountServiceAccountToken": False,
    }


def render_controller(own: Own) -> list[Object]:
    """One that acts and one that waits; the Service leads to whichever acts."""
    container = _container(
        own,
        ["python3", "-m", "shoal.api", "--engine", "kubernetes", "--fleet", own.fleet],
        [("keys", KEYS_DIRECTORY), ("join", JOIN_DIRECTORY)],
        [("link", LINK_PORT), ("api", API_PORT)],
    )
    container["env"] += [_field("SHOAL_POD", "metadata.name"), _field("SHOAL_NAMESPACE", "metadata.namespace")]
    pod = _pod(own, container, [_secret_volume("keys", KEYS), _secret_volume("join", JOIN)], grace_s=10)
    pod |= {"serviceAccountName": CONTROLLER, "automountServiceAccountToken": True}
    service = _service(own, Role.CONTROLLER, CONTROLLER, [("link", LINK_PORT, LINK_PORT), ("api", API_PORT, API_PORT)])
    service["spec"]["selector"] |= {names.LEADER: "true"}
    return [
        service,
        _budget(own, Role.CONTROLLER, CONTROLLER),
        _deployment(own, Role.CONTROLLER, CONTROLLER, 2, pod),
    ]


def render_gateway(own: Own) -> list[Object]:
    """Several, each with what it was last told on a disk of its pod."""
    container = _container(
        own,
        [
            "python3", "-m", "shoal.proxy", "--state-dir", f"{STATE_DIRECTORY}/gateway",
            "--controller", f"{CONTROLLER}:{LINK_PORT}",
            "--join", f"https://{CONTROLLER}:{API_PORT}", "--join-token", f"{JOIN_DIRECTORY}/{TOKEN}",
        ],
        [("join", JOIN_DIRECTORY), ("state", STATE_DIRECTORY)],
        [("public", PUBLIC_PORT), ("calls", CALLS_PORT)],
    )  # fmt: skip
    container["readinessProbe"] = {"tcpSocket": {"port": "public"}, "periodSeconds": 1, "failureThreshold": 2}
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": _GATEWAY_LEAVES_S}}}
    state: Object = {"name": "state", "emptyDir": {}}
    volumes = [_secret_volume("join", JOIN), state]
    pod = _pod(own, container, volumes, grace_s=_GATEWAY_LEAVES_S + _GATEWAY_GRACE_S)
    options = own.options
    public = _service(own, Role.GATEWAY, GATEWAY, [("public", options.port, PUBLIC_PORT)])
    public["spec"]["type"] = options.service
    if options.node_port is not None and options.service != "ClusterIP":
        public["spec"]["ports"][0]["nodePort"] = options.node_port
    calls = _service(own, Role.GATEWAY, CALLS, [("calls", CALLS_PORT, CALLS_PORT)])
    return [
        public,
        calls,
        _deployment(own, Role.GATEWAY, GATEWAY, options.gateways, pod),
    ]


CALLS = "shoal-calls"  # the Service by which agents reach the gateways: from the outside nobody does


def render_gateway_budget(own: Own) -> Object:
    """Of several gateways one at a time may be taken away."""
    return _budget(own, Role.GATEWAY, GATEWAY)


def render_broker(own: Own, configuration: str, claims: Sequence[Object] = ()) -> list[Object]:
    """The embedded broker with its claim; `configuration` names the Secret that holds its file, `claims` are those of
    the StatefulSet that is there: nobody can change what these ask for."""
    container = _container(
        own,
        ["python3", "-m", "shoal.engines.nats_server", f"{BROKER_DIRECTORY}/nats.conf"],
        [("configuration", BROKER_DIRECTORY), (BROKER_CLAIM, STATE_DIRECTORY)],
        [("broker", BROKER_PORT)],
    )
    container["readinessProbe"] = {"tcpSocket": {"port": "broker"}, "periodSeconds": 1}
    pod = _pod(own, container, [_secret_volume("configuration", configuration)], grace_s=30)
    labels = fleet_labels(own.fleet, Role.BROKER)
    asked: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(own.options.storage_bytes)}},
    }
    if own.options.storage_class is not None:
        asked["storageClassName"] = own.options.storage_class
    stateful: Object = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": BROKER, "labels": labels},
        "spec": {
            "replicas": 1,
            "podManagementPolicy": "Parallel",  # else one that never got ready would never be replaced
            "serviceName": BROKER,
            "selector": {"matchLabels": {names.ROLE: Role.BROKER.value}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "volumeClaimTemplates": claims or [{"metadata": {"name": BROKER_CLAIM, "labels": labels}, "spec": asked}],
        },
    }
    return [_service(own, Role.BROKER, BROKER, [("broker", BROKER_PORT, BROKER_PORT)]), noted(stateful)]


def noted(item: Object) -> Object:
    """With the hash of what is applied, by which what is unchanged is known; what claims ask for is never applied
    again."""
    hashed = {**item, "spec": {**item["spec"], "volumeClaimTemplates": ()}} if item["kind"] == "StatefulSet" else item
    content = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]
    annotations = {**item["metadata"].get("annotations", {}), names.CONTENT: content}
    return {**item, "metadata": {**item["metadata"], "annotations": annotations}}


def _deployment(own: Own, role: Role, name: str, replicas: int, pod: Object) -> Object:
    labels = fleet_labels(own.fleet, role)
    spread = {"labelSelector": {"matchLabels": {names.ROLE: role.value}}, "topologyKey": "kubernetes.io/hostname"}
    pod["topologySpreadConstraints"] = [{"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", **spread}]
    pod["tolerations"] = leave_lost_node()
    return noted(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": replicas,
                "revisionHistoryLimit": 1,
                "selector": {"matchLabels": {names.ROLE: role.value}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
    )


def _pod(own: Own, container: Object, volumes: Sequence[Object], *, grace_s: int) -> Object:
    return {
        "automountServiceAccountToken": False,
        "serviceAccountName": AGENTS_ACCOUNT,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
        **({"imagePullSecrets": [{"name": name} for name in own.pulls]} if own.pulls else {}),
    }


def _container(
    own: Own, command: Sequence[str], mounts: Sequence[tuple[str, str]], ports: Sequence[tuple[str, int]]
) -> Object:
    return {
        "name": OWN_CONTAINER,
        "image": own.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "ports": [{"name": name, "containerPort": port} for name, port in ports],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in (*mounts, ("tmp", "/tmp"))],
    }


def _field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _secret_volume(name: str, secret: str) -> Object:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def _service(own: Own, role: Role, name: str, ports: Sequence[tuple[str, int, int]]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": fleet_labels(own.fleet, role)},
        "spec": {
            "selector": {names.ROLE: role.value},
            "ports": [{"name": port, "port": at, "targetPort": port_of} for port, at, port_of in ports],
        },
    }


def _budget(own: Own, role: Role, name: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "labels": fleet_labels(own.fleet, role)},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {names.ROLE: role.value}},
        },
    }
