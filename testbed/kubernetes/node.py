"""One node: a machine of namespaces with containerd, kubelet and kube-proxy in it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from testbed.archive import Image, write_archive
from testbed.commands import BedError, launch, on_each, run, until
from testbed.debian_root import make_root
from testbed.kubernetes.bed import DNS_ADDRESS, KubeBed, kubeconfig_of, pods_of
from testbed.kubernetes.pod_images import PAUSE, node_images
from testbed.swarm import cgroups, network, registry
from testbed.swarm import node as machine
from testbed.swarm.bed import Node

_PACKAGES = (
    *("base-files", "bash", "coreutils", "sed", "grep", "busybox-static", "util-linux", "mount", "kmod", "tini"),
    *("containerd", "runc", "containernetworking-plugins", "iptables", "nftables", "iproute2", "conntrack", "procps"),
)
_SUITE = "sid"
_READY_S = 30.0
_LOAD_S = 300.0
_CONTROLLERS = ("memory", "cpuacct", "cpu", "cpuset", "pids", "freezer", "devices", "blkio", "hugetlb", "systemd")

# kubelet would change these for the whole host: it is shown the values that it wants.
_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_PREPARE = r"""
set -e
[ -e /run/prepared ] && exit 0
mkdir -p /run/sysctl /run/netns /run/lock /etc/cni/net.d /var/log
for pair in $SYSCTLS; do
  file=${pair%%=*}
  mkdir -p "/run/sysctl/${file%/*}"
  echo "${pair#*=}" > "/run/sysctl/$file"
  mount --bind "/run/sysctl/$file" "/proc/sys/$file"
done
for name in kubelet containerd log; do
  mkdir -p "$DISK/$name"
done
mkdir -p /var/lib/kubelet /var/lib/containerd
mount --bind "$DISK/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind "$DISK/containerd" /var/lib/containerd
mount --bind "$DISK/log" /var/log
cp "$DISK/cni.conflist" /etc/cni/net.d/10-bed.conflist
echo 1 > /proc/sys/net/ipv4/ip_forward
touch /run/prepared
"""


def node_root(cache: Path) -> Path:
    """The root file system of nodes."""
    root = cache / f"kubernetes-{_SUITE}"
    make_root(root, _SUITE, _PACKAGES)
    return root


def start(node: Node, bed: KubeBed, binaries: Path) -> None:
    """Boots what isn't there, and starts what doesn't run. Needs the API server for nothing."""
    cgroups.set_frozen(node, False)
    _make_groups(node)
    machine.boot(node, node_root(bed.cache), shared=bed.volumes)
    network.set_cable(node, plugged=True)
    _write_settings(node, bed)
    pairs = " ".join(f"{name}={value}" for name, value in _SYSCTLS.items())
    run(["env", f"SYSCTLS={pairs}", f"DISK={node.directory}", *machine.inside(node, ["sh", "-c", _PREPARE])])
    if not _answers(node):
        _launch(node, "containerd", ["containerd", "--config", str(node.directory / "containerd.toml")])
        until(lambda: _answers(node), f"the containerd of {node.name}", timeout_s=_READY_S)
    load(node, node_images(bed, node_root(bed.cache)))
    programs = _give_files(node, bed, binaries)
    settings = ["--config", str(node.directory / "kubelet.json"), "--kubeconfig", str(node.directory / "kubeconfig")]
    labels = f"topology.kubernetes.io/zone=z{(node.number - 1) % 3 + 1}"
    own = ["--hostname-override", node.name, "--node-ip", node.address, "--node-labels", labels]
    _launch_once(node, "kubelet", [str(programs / "kubelet"), *settings, *own])
    _launch_once(node, "kube-proxy", [str(programs / "kube-proxy"), "--config", str(node.directory / "proxy.json")])


def connect(bed: KubeBed) -> None:
    """Ways to every node's pods, from the other nodes, the bridge and this machine."""
    running = [node for node in bed.nodes() if machine.init_pid(node) is not None]
    for node in running:
        way = [pods_of(node), "via", node.address]
        run(["ip", "-n", bed.fabric, "route", "replace", *way])
        run(["ip", "route", "replace", *way, "dev", bed.host_link])
        for other in running:
            if other is not node:
                run(machine.inside(other, ["ip", "route", "replace", *way]))


def load(node: Node, images: Iterable[Image]) -> None:
    """Those that the node has not by this ID."""
    there = run(_ctr(node, ["images", "ls"]))
    for image in images:
        named = f"docker.io/{image.tag}"
        if f"{named} " in there and f"{name_of(image)} " in there and _id_of(node, image) == image.image_id:
            continue
        with tempfile.NamedTemporaryFile(dir=node.directory, suffix=".tar") as part:
            write_archive(image, Path(part.name))
            run(_ctr(node, ["images", "import", part.name]), timeout_s=_LOAD_S)
        run(_ctr(node, ["images", "tag", "--force", named, name_of(image)]))
        (node.directory / f"image-{image.tag.rpartition('/')[2]}").write_text(image.image_id)


def load_on_each(nodes: Sequence[Node], images: Iterable[Image]) -> None:
    """On all of them at once."""
    wanted = list(images)
    on_each(nodes, lambda node: load(node, wanted))


def push(node: Node, image: str, name: str) -> str:
    """An image of the node, to the bed's registry; gives its name there, by which no node has it yet."""
    pushed = f"{node.bed.bridge_address}:{registry.PORT}/{name}"
    run(_ctr(node, ["images", "tag", image, pushed]))
    who = f"{registry.USER}:{registry.PASSWORD}"
    run(_ctr(node, ["images", "push", "--plain-http", "--user", who, pushed]), timeout_s=_LOAD_S)
    run(_ctr(node, ["images", "rm", pushed]))
    return pushed


def name_of(image: Image) -> str:
    """As pods name this one, whichever has the tag `latest` by then."""
    return f"docker.io/{image.tag.rpartition(':')[0]}:{image.image_id.removeprefix('sha256:')[:12]}"


def _id_of(node: Node, image: Image) -> str:
    try:
        return (node.directory / f"image-{image.tag.rpartition('/')[2]}").read_text()
    except FileNotFoundError:
        return ""


def _ctr(node: Node, words: Sequence[str]) -> list[str]:
    return machine.inside(node, ["ctr", "--namespace", "k8s.io", *words])


def _answers(node: Node) -> bool:
    try:
        run(_ctr(node, ["version"]), timeout_s=5)
    except BedError:
        return False
    return True


def _launch(node: Node, name: str, command: list[str]) -> None:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    words = machine.inside(node, ["env", path, *command])
    launch(words, node.directory / f"{name}.pid", node.directory / f"{name}.log", groups=_make_groups(node))


def _launch_once(node: Node, name: str, command: list[str]) -> None:
    running = (Path(f"/proc/{pid}/cmdline") for pid in cgroups.processes(node, daemons_only=True))
    if not any(_is(path, name) for path in running):
        _launch(node, name, command)


def _is(cmdline: Path, name: str) -> bool:
    try:
        return cmdline.read_text().split("\0")[0].rpartition("/")[2] == name
    except OSError:
        return False


def _make_groups(node: Node) -> list[Path]:
    """Of every controller that there is: kubelet wants its root in each."""
    groups = {str(group): group for group in cgroups.daemons_groups(node)}
    for name in _CONTROLLERS:
        tree = cgroups.ROOT / name
        if tree.is_dir():
            group = tree / node.bed.name / node.name / "daemons"
            group.mkdir(parents=True, exist_ok=True)
            groups[str(group)] = group
    if (cgroups.ROOT / "cpuset").is_dir():
        below = cgroups.ROOT / "cpuset"
        for part in (node.bed.name, node.name, "daemons"):
            for file in ("cpuset.cpus", "cpuset.mems"):
                (below / part / file).write_text((below / file).read_text())
            below /= part
    return list(groups.values())


def _give_files(node: Node, bed: KubeBed, binaries: Path) -> Path:
    """What of the bed the node needs on its own disk, which is all that it sees; the directory of the programs."""
    programs = node.directory / "programs"
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir()
    (programs / "kube").hardlink_to(binaries / "kube")
    for name in ("kubelet", "kube-proxy"):
        (programs / name).symlink_to("kube")
    shutil.copy(kubeconfig_of(bed, node.name), node.directory / "kubeconfig")
    shutil.copy(kubeconfig_of(bed, "kube-proxy"), node.directory / "kube-proxy.kubeconfig")
    shutil.copy(bed.directory / "keys/ca.crt", node.directory / "ca.crt")
    return programs


def _write_settings(node: Node, bed: KubeBed) -> None:
    directory = node.directory
    (directory / "cni.conflist").write_text(json.dumps(_cni(node)))
    (directory / "containerd.toml").write_text(_CONTAINERD + _REGISTRIES.format(directory=directory / "registries"))
    address = f"{bed.bridge_address}:{registry.PORT}"
    (directory / "registries" / address).mkdir(parents=True, exist_ok=True)
    (directory / "registries" / address / "hosts.toml").write_text(f'[host."http://{address}"]\n')
    (directory / "kubelet.json").write_text(json.dumps(_kubelet(node)))
    (directory / "proxy.json").write_text(json.dumps(_proxy(node, bed)))


def _cni(node: Node) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": pods_of(node)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/cni-addresses",
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "bed", "plugins": [{**bridge, "ipam": addresses}, ports]}


_CONTAINERD = f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.zfs", "io.containerd.nri.v1.nri"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"""
# A file for each registry says how it is spoken to: the bed's speaks plain HTTP.
_REGISTRIES = """\
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{directory}"
"""


def _kubelet(node: Node) -> dict[str, Any]:
    authority = str(node.directory / "ca.crt")
    never = {
        "memory.available": "100Mi",
        "nodefs.available": "0%",
        "imagefs.available": "0%",
        "nodefs.inodesFree": "0%",
    }
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.bed.name}/{node.name}",
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "failSwapOn": False,
        "failCgroupV1": False,
        "featureGates": {"KubeletInUserNamespace": True},
        "evictionHard": never,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 200,
        "address": node.address,
        "healthzPort": 0,
        "nodeStatusUpdateFrequency": "10s",
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "resolvConf": "/etc/resolv.conf",
    }


def _proxy(node: Node, bed: KubeBed) -> dict[str, Any]:
    unlimited = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    kubeconfig = node.directory / "kube-proxy.kubeconfig"
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": bed.pods,
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "bindAddress": node.address,
        "healthzBindAddress": f"{node.address}:10256",
        "metricsBindAddress": f"{node.address}:10249",
        "conntrack": unlimited,
    }
