"""The Kubernetes bed's life, on one of its own beside the one that tests run on: root, and `make testbed` first."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator

import pytest

from testbed.commands import BedError, run, until
from testbed.kubernetes import life
from testbed.kubernetes.api import Api
from testbed.kubernetes.bed import KubeBed, KubeShape
from testbed.kubernetes.control_plane import ready_nodes
from testbed.kubernetes.daemons import Daemon
from testbed.kubernetes.simulation import KWOK, MARK, simulate
from testbed.swarm import cgroups, network
from testbed.swarm import node as machine
from testbed.swarm.environment import cache_directory
from tests.kubernetes_cluster import skip

pytestmark = pytest.mark.kubernetes
SHAPE = KubeShape(nodes=1)
DEADLINE_S = 90.0  # generous: a shared machine may be busy; no test waits for it when all is well


@pytest.fixture(scope="module")
def bed() -> Generator[KubeBed]:
    """Of one node; one session at a time has it."""
    made = KubeBed("kubetest", "192.168.68", cache_directory())
    if os.geteuid() != 0:
        skip("the bed needs root")
    if not (made.cache / f"kubernetes-{SHAPE.version}/kube").exists():
        skip("the bed's Kubernetes is not built yet: make kube-testbed")
    with (made.cache / "test-kubernetes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        life.down(made)  # what a session that was killed left
        try:
            life.up(made, SHAPE)
            yield made
        finally:
            life.down(made, purge=True)


def state_of(bed: KubeBed, name: str) -> str:
    return {key.split()[0]: state for key, state in life.status(bed)}[name]


def wait_for(bed: KubeBed, name: str, state: str) -> None:
    until(lambda: state_of(bed, name) == state, f"{name} to be {state}", timeout_s=DEADLINE_S)


def test_up_again_changes_nothing(bed: KubeBed) -> None:
    """The same processes; another shape is refused, by what is up."""
    names = [name.split()[0] for name, _ in life.status(bed)][:-1]
    before = [Daemon(bed.directory, name).pid for name in names], machine.init_pid(bed.node(1))
    assert all(before[0]) and life.up(bed, None) == life.up(bed, SHAPE) == SHAPE
    assert ([Daemon(bed.directory, name).pid for name in names], machine.init_pid(bed.node(1))) == before
    with pytest.raises(BedError, match=r"kubetest is up \(Kubernetes .*, 1 nodes\).*3 nodes"):
        life.up(bed, KubeShape(nodes=3))


def test_a_second_bed_on_the_same_network_is_refused(bed: KubeBed) -> None:
    """Before anything is made, and with the way out."""
    second = KubeBed("second", bed.network, bed.cache)
    with pytest.raises(BedError, match=r"192\.168\.68\.0/24: this machine reaches it by kubetest-host.*SHOAL_KUBE_BED"):
        life.up(second, SHAPE)
    assert life.left_of(second) == []


def test_a_node_is_killed_and_comes_back(bed: KubeBed) -> None:
    one = bed.node(1)
    machine.kill(one)
    assert state_of(bed, "n1") == "killed"
    life.start(bed, one)
    wait_for(bed, "n1", "ready")


def test_a_node_is_cut_off_and_frozen(bed: KubeBed) -> None:
    """And `up` heals and thaws it."""
    one = bed.node(1)
    network.set_cable(one, plugged=False)
    assert state_of(bed, "n1") == "cut"
    cgroups.set_frozen(one, True)
    assert state_of(bed, "n1") == "frozen"
    life.up(bed, None)
    wait_for(bed, "n1", "ready")


def test_a_part_is_stopped_and_run_again(bed: KubeBed) -> None:
    """Without etcd the API server has nothing to say; an agent comes back too."""
    for name in ("etcd", "policies"):
        Daemon(bed.directory, name).stop()
        assert state_of(bed, name) == "stopped"
    with pytest.raises(OSError, match=r"."):
        Api(bed).list("/api/v1/nodes")
    for name in ("etcd", "policies"):
        life.run_part(bed, name)
        assert state_of(bed, name) == "runs"
    wait_for(bed, "n1", "ready")


def test_nodes_are_simulated(bed: KubeBed) -> None:
    """So many as were asked for last; what the bed has of its own stays on real ones."""
    for count in (3, 2):
        simulate(bed, count)
        assert ready_nodes(bed) == {"n1", *(f"sim-{number + 1}" for number in range(count))}
    names = {pod["spec"]["nodeName"] for pod in Api(bed).list("/api/v1/namespaces/kube-system/pods")[0]}
    assert names == {"n1"}
    _is_ready_again(bed)
    simulate(bed, 0)
    assert Daemon(bed.directory, KWOK).pid is None and ready_nodes(bed) == {"n1"}


def _is_ready_again(bed: KubeBed) -> None:
    """A simulated pod that was called not ready, as all are of a node that is out of sight for a moment."""
    pods = "/api/v1/namespaces/default/pods"
    spec = {
        "nodeSelector": {"type": KWOK},
        "tolerations": [{"key": MARK, "operator": "Exists"}],
        "containers": [{"name": "main", "image": "none"}],
    }
    Api(bed).create(pods, {"metadata": {"name": "made-up"}, "spec": spec})

    def ready_since() -> str | None:
        conditions = Api(bed).list(pods)[0][0]["status"].get("conditions", [])
        ready = (each for each in conditions if each["type"] == "Ready" and each["status"] == "True")
        return next((each["lastTransitionTime"] for each in ready), None)

    until(lambda: ready_since() is not None, "the simulated pod to be ready", timeout_s=DEADLINE_S)
    kubectl = [str(bed.cache / f"kubernetes-{SHAPE.version}/kubectl"), "--kubeconfig", str(bed.kubeconfig)]
    long_ago = "2001-01-01T00:00:00Z"
    lost = {"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": long_ago}]}}
    run([*kubectl, "patch", "pod", "made-up", "--subresource=status", "-p", json.dumps(lost)])
    until(lambda: ready_since() not in (None, long_ago), "the simulated pod to be ready again", timeout_s=DEADLINE_S)
    Api(bed).delete(f"{pods}/made-up")


def test_down_leaves_nothing(bed: KubeBed) -> None:
    """But images, for the next time; nothing that was asked of the cluster is remembered."""
    Api(bed).create("/api/v1/namespaces", {"metadata": {"name": "kept"}})
    life.down(bed)
    assert life.left_of(bed) == [] and bed.nodes() == []
    life.up(bed, SHAPE)
    assert "kept" not in {each["metadata"]["name"] for each in Api(bed).list("/api/v1/namespaces")[0]}
