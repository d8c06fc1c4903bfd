"""The parts of the control plane, each a process in the namespace of the bed's bridge, that can be stopped and run."""

from __future__ import annotations

from pathlib import Path

from testbed.commands import BedError, until
from testbed.kubernetes.api import Api
from testbed.kubernetes.audit import audit_settings
from testbed.kubernetes.authority import make_keys
from testbed.kubernetes.bed import API_PORT, SERVICES, KubeBed, kubeconfig_of
from testbed.kubernetes.daemons import Daemon

PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_READY_S = 90.0
_ETCD = "http://127.0.0.1:2379"
_FAST = ("--kube-api-qps", "500", "--kube-api-burst", "1000")  # by default thousands of pods take minutes


def part_of(bed: KubeBed, name: str) -> Daemon:
    """Raises BedError for what is none."""
    if name not in PARTS:
        raise BedError(f"{name}: no part of the control plane; expected one of {', '.join(PARTS)}")
    return Daemon(bed.directory, name)


def run_part(bed: KubeBed, name: str, binaries: Path) -> None:
    """Starts one; one that runs is left alone."""
    words = [f"--{key}={value}" for key, value in _settings(bed, name).items()]
    command = ["nsenter", f"--net=/run/netns/{bed.fabric}", binaries / name, *words]
    part_of(bed, name).start([*command, *(_FAST if name in PARTS[2:] else ())])


def wait_ready(bed: KubeBed) -> None:
    """Until the API server answers. Raises BedError."""
    api, log = Api(bed), part_of(bed, "kube-apiserver").log
    until(lambda: api.get("/readyz") == b"ok", f"the API server, see {log}", timeout_s=_READY_S, errors=(OSError,))


def ready_nodes(bed: KubeBed) -> set[str]:
    """The names of the nodes that say so. Raises OSError."""
    found: set[str] = set()
    for node in Api(bed).list("/api/v1/nodes")[0]:
        conditions = node["status"].get("conditions", [])
        if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
            found.add(node["metadata"]["name"])
    return found


def _settings(bed: KubeBed, name: str) -> dict[str, str]:
    keys = make_keys(bed)
    if name == "etcd":
        return {
            "data-dir": str(bed.directory / "etcd"),
            "listen-client-urls": _ETCD,
            "advertise-client-urls": _ETCD,
            "listen-peer-urls": "http://127.0.0.1:2380",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
    if name == "kube-apiserver":
        return _api_server(bed, keys) | audit_settings(bed)
    settings = {"kubeconfig": str(kubeconfig_of(bed, name)), "leader-elect": "false"}
    if name == "kube-controller-manager":
        settings |= {
            "service-account-private-key-file": str(keys / "accounts.key"),
            "root-ca-file": str(keys / "ca.crt"),
            "cluster-signing-cert-file": str(keys / "ca.crt"),
            "cluster-signing-key-file": str(keys / "ca.key"),
            "use-service-account-credentials": "true",
            "cluster-cidr": bed.pods,
            "allocate-node-cidrs": "false",
        }
    return settings


def _api_server(bed: KubeBed, keys: Path) -> dict[str, str]:
    authority = str(keys / "ca.crt")
    return {
        "etcd-servers": _ETCD,
        "bind-address": "0.0.0.0",
        "advertise-address": bed.bridge_address,
        "secure-port": str(API_PORT),
        "service-cluster-ip-range": SERVICES,
        "tls-cert-file": str(keys / "apiserver.crt"),
        "tls-private-key-file": str(keys / "apiserver.key"),
        "client-ca-file": authority,
        "token-auth-file": str(keys / "tokens.csv"),
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": str(keys / "accounts.key"),
        "service-account-signing-key-file": str(keys / "accounts.key"),
        "kubelet-client-certificate": str(keys / "kubelet-client.crt"),
        "kubelet-client-key": str(keys / "kubelet-client.key"),
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": authority,
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": str(keys / "front-proxy.crt"),
        "proxy-client-key-file": str(keys / "front-proxy.key"),
        "enable-aggregator-routing": "true",
        "allow-privileged": "true",
        "max-requests-inflight": "800",
        "max-mutating-requests-inflight": "400",
    }
