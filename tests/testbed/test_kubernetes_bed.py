"""What the Kubernetes bed has of a cluster: volumes, names, metrics, enforced policies and Pod Security."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from testbed.commands import BedError, run, until
from testbed.kubernetes import life
from testbed.kubernetes.api import Api
from testbed.kubernetes.bed import KubeBed, KubeShape
from tests.kubernetes_cluster import Cluster, skip

IMAGE = "docker.io/shoal-testbed/pause:1"  # on every node; all in it is busybox
PORT = 8000
SERVE = f"/busybox mkdir /www; echo hello >/www/index.html; exec /busybox httpd -f -p {PORT} -h /www"
DEADLINE_S = 90.0  # generous: a shared machine may be busy; no test waits for it when all is well


@dataclass(frozen=True)
class Namespace:
    """One test's."""

    bed: KubeBed
    name: str

    def kubectl(self, *words: str) -> str:
        shape = self.bed.kube_shape.read() or KubeShape()
        program = life.prepare(self.bed, shape.version) / "kubectl"
        return run([program, "--kubeconfig", self.bed.kubeconfig, "--namespace", self.name, *words])

    def create(self, path: str, **spec: Any) -> None:
        """At a path such as `apis/apps/v1/deployments`."""
        group, _, collection = path.rpartition("/")
        Api(self.bed).create(f"/{group}/namespaces/{self.name}/{collection}", spec)

    def pod(self, name: str, script: str, **more: Any) -> None:
        """One whose container runs the script, and is ready at once."""
        container = {"name": "main", "image": IMAGE, "command": ["/busybox", "sh", "-c", script]}
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container], **more}
        self.create("api/v1/pods", metadata={"name": name, "labels": {"app": name}}, spec=spec)

    def address(self, pod: str) -> str:
        """Once it runs, and who asks it is answered."""
        found = until(lambda: self._running(pod), f"pod {pod}", timeout_s=DEADLINE_S)
        return found["podIP"]

    def _running(self, pod: str) -> Mapping[str, Any] | None:
        status = json.loads(self.kubectl("get", "pod", pod, "-o", "json"))["status"]
        return status if status["phase"] == "Running" else None

    def get(self, pod: str, url: str) -> str:
        """What the pod is answered. Raises BedError."""
        return self.kubectl("exec", pod, "--", "/busybox", "wget", "-T", "5", "-q", "-O", "-", url)


@pytest.fixture
def namespace(kubernetes: Cluster) -> Generator[Namespace]:
    if kubernetes.bed is None:
        skip("these are tests of the bed itself (make kube-up)")
    api, name = Api(kubernetes.bed), f"bed-test-{secrets.token_hex(3)}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": {"of": name}}})
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts/default"  # pods are refused before it is there
    until(lambda: api.get(accounts), "the namespace's account", timeout_s=DEADLINE_S, errors=(OSError,))
    try:
        yield Namespace(kubernetes.bed, name)
    finally:
        api.delete(f"/api/v1/namespaces/{name}")


def wait_until(holds: Callable[[], bool], what: str) -> None:
    until(holds, what, timeout_s=DEADLINE_S, errors=(BedError, OSError))


def test_a_claims_files_outlive_its_pod(namespace: Namespace) -> None:
    """Written by who is not root, as the group that the pod says."""
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    mounted = [{"name": "data", "mountPath": "/data"}]
    script = "/busybox id -u >>/data/starts; while :; do /busybox sleep 1; done"
    container = {"name": "main", "image": IMAGE, "command": ["/busybox", "sh", "-c", script], "volumeMounts": mounted}
    template = {
        "metadata": {"labels": {"app": "stock"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
            "containers": [container],
        },
    }
    namespace.create(
        "apis/apps/v1/statefulsets",
        metadata={"name": "stock"},
        spec={
            "serviceName": "stock",
            "selector": {"matchLabels": {"app": "stock"}},
            "template": template,
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": asked}],
        },
    )

    def starts() -> list[str]:
        return namespace.kubectl("exec", "stock-0", "--", "/busybox", "cat", "/data/starts").split()

    wait_until(lambda: starts() == ["10001"], "the first pod")
    namespace.kubectl("delete", "pod", "stock-0")
    wait_until(lambda: starts() == ["10001", "10001"], "the second pod, with the first one's file")


def test_pods_find_services_by_name(namespace: Namespace) -> None:
    """In their own namespace by less of it; a name of no cluster is known at once not to be."""
    ports = [{"port": 80, "targetPort": PORT}]
    namespace.create("api/v1/services", metadata={"name": "web"}, spec={"selector": {"app": "web"}, "ports": ports})
    namespace.pod("web", SERVE)
    namespace.pod("client", "while :; do /busybox sleep 1; done")
    for pod in ("web", "client"):
        namespace.address(pod)
    for name in ("web", f"web.{namespace.name}", f"web.{namespace.name}.svc.cluster.local"):
        wait_until(lambda name=name: namespace.get("client", f"http://{name}/") == "hello\n", name)
    with pytest.raises(BedError, match="bad address"):
        namespace.get("client", "http://example.com/")


def test_policies_are_enforced(namespace: Namespace) -> None:
    """What is forbidden is refused, what is allowed goes through, and without the policy all does."""
    namespace.pod("web", SERVE)
    for name in ("friend", "stranger"):
        namespace.pod(name, "while :; do /busybox sleep 1; done")
        namespace.address(name)
    url = f"http://{namespace.address('web')}:{PORT}/"

    def passes(pod: str) -> bool:
        try:
            return namespace.get(pod, url) == "hello\n"
        except BedError as error:
            assert "No route to host" in str(error) or "refused" in str(error)
            return False

    wait_until(lambda: passes("friend") and passes("stranger"), "the server")
    only_friends = {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": PORT}]}
    _forbid(namespace, "Ingress", {"matchLabels": {"app": "web"}}, [only_friends])
    wait_until(lambda: not passes("stranger"), "the policy")
    assert passes("friend")
    _forbid(namespace, "Egress", {"matchLabels": {"app": "friend"}}, [])
    wait_until(lambda: not passes("friend"), "the policy for what goes out")
    namespace.kubectl("delete", "networkpolicies", "--all")
    wait_until(lambda: passes("friend") and passes("stranger"), "the end of the policies")


def test_an_open_connection_goes_on(namespace: Namespace) -> None:
    """And the node reaches its own pods; seen from this machine, which is outside."""
    namespace.pod("web", SERVE)
    address = (namespace.address("web"), PORT)
    wait_until(lambda: _connects(address), "the server")
    with socket.create_connection(address, timeout=10) as before:
        before.sendall(b"GET / HTTP/1.0\r\n")
        _forbid(namespace, "Ingress", {}, [])
        wait_until(lambda: not _connects(address), "the policy")
        before.sendall(b"\r\n")
        answer = b"".join(iter(lambda: before.recv(4096), b""))
        assert answer.endswith(b"hello\n")
    probe = {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1}
    container = {"name": "main", "image": IMAGE, "command": ["/busybox", "sh", "-c", SERVE], "readinessProbe": probe}
    namespace.pod("probed", "", containers=[container])
    namespace.kubectl("wait", "--for=condition=Ready", "pod/probed", "--timeout=50s")
    assert not _connects((namespace.address("probed"), PORT))


def test_what_pods_use_is_known(namespace: Namespace) -> None:
    namespace.pod("busy", "while :; do /busybox sleep 1; done")
    wait_until(lambda: "busy" in namespace.kubectl("top", "pods", "--no-headers"), "metrics of the pod")
    name, cpu, memory = namespace.kubectl("top", "pods", "--no-headers").split()
    assert (name, cpu[-1], memory[-2:]) == ("busy", "m", "Mi")


def test_pod_security_is_admission(namespace: Namespace) -> None:
    """Of a namespace's label, as in any cluster: root is refused, who takes every precaution is let in."""
    namespace.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
    override = {"spec": {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}}
    with pytest.raises(BedError, match='violates PodSecurity "restricted:latest": allowPrivilegeEscalation'):
        namespace.kubectl("run", "root", f"--image={IMAGE}", "--image-pull-policy=Never")
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsUser": 10001}
    container = {"name": "main", "image": IMAGE, "securityContext": safe}
    namespace.pod("safe", "", containers=[container], **override["spec"])
    namespace.address("safe")


def _forbid(namespace: Namespace, direction: str, pods: Any, rules: list[Any]) -> None:
    spec = {"podSelector": pods, "policyTypes": [direction], direction.lower(): rules}
    about = {"name": f"{direction.lower()}-{secrets.token_hex(2)}"}
    namespace.create("apis/networking.k8s.io/v1/networkpolicies", metadata=about, spec=spec)


def _connects(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=5):
        return True
    return False
