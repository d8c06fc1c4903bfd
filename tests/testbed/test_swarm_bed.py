"""The bed itself, on one of its own beside the one that tests run on: root, and `make testbed` first."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from testbed.archive import render_image, write_archive, write_layer
from testbed.commands import BedError
from testbed.images import build_images
from testbed.swarm import cgroups, dockerd, forming, life, loading, network, registry
from testbed.swarm import node as machine
from testbed.swarm.bed import Bed, Node, Shape
from testbed.swarm.engine_api import call
from testbed.swarm.environment import cache_directory
from tests.swarm_bed import find_swarm, skip

SHAPE = Shape(managers=1, workers=1, heartbeat_s=1.0, registry=True, generic={"n2": ["gpu=GPU-1", "gpu=GPU-2"]})
PORT = 8099
DEADLINE_S = 90.0  # generous: a shared machine may be busy; no test waits for it when all is well


@pytest.fixture(scope="module")
def bed() -> Generator[Bed]:
    """One manager and one worker, and a service that answers at PORT of each; one session at a time has it."""
    made = Bed("test", "192.168.79", cache_directory())
    if os.geteuid() != 0:
        skip("the bed needs root")
    if not (made.cache / f"docker-{made.suite}").exists():
        skip("the bed's Docker is not there yet: make testbed")
    with (made.cache / "test.lock").open("w") as lock:
        wait_until(lambda: _locked(lock.fileno()), "the other session that tests the bed", 4 * DEADLINE_S)
        life.down(made)  # what a session that was killed left
        try:
            life.up(made, SHAPE)
            agents = build_images(made.cache).agents
            loading.load_images(made.nodes(), [agents])
            _serve(made.node(1), agents.image_id)
            wait_until(lambda: is_settled(made), "the service")
            yield made
        finally:
            life.down(made, purge=True)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _serve(manager: Node, image_id: str) -> None:
    container = {"Image": image_id, "Command": ["python", "-m", "http.server", str(PORT)], "Init": True}
    port = {"PublishedPort": PORT, "TargetPort": PORT, "PublishMode": "host", "Protocol": "tcp"}
    task = {"ContainerSpec": container, "RestartPolicy": {"Condition": "any", "Delay": 500_000_000}}
    spec = {"Name": "web", "TaskTemplate": task, "Mode": {"Global": {}}}
    call(manager, "POST", "/services/create", spec | {"EndpointSpec": {"Mode": "dnsrr", "Ports": [port]}})


def serves(node: Node) -> bool:
    """From the host, at the node's own port."""
    try:
        with urllib.request.urlopen(f"http://{node.address}:{PORT}/", timeout=1.0) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end, f"waited {deadline_s:g} s for {what}"
        time.sleep(0.05)


def members(bed: Bed) -> dict[str, tuple[str, str]]:
    """Each node's id and state, as the manager sees them."""
    nodes = call(bed.node(1), "GET", "/nodes")
    return {node["Description"]["Hostname"]: (node["ID"], node["Status"]["State"]) for node in nodes}


def is_ready(bed: Bed, name: str) -> bool:
    return members(bed)[name][1] == "ready"


def is_settled(bed: Bed) -> bool:
    """Each node is ready and serves from the one container that the manager wants there."""
    wanted = [task for task in call(bed.node(1), "GET", "/tasks") if task["DesiredState"] == "running"]
    running = [task["Status"] for task in wanted if task["Status"]["State"] == "running"]
    containers = [found["Id"] for node in bed.nodes() for found in call(node, "GET", "/containers/json")]
    return (
        len(wanted) == len(bed.nodes())
        and sorted(status["ContainerStatus"]["ContainerID"] for status in running) == sorted(containers)
        and all(is_ready(bed, node.name) and serves(node) for node in bed.nodes())
    )


def test_up_again_changes_nothing(bed: Bed) -> None:
    """The same processes and the same Swarm; another shape is refused, by what is up."""
    before = [machine.init_pid(node) for node in bed.nodes()], members(bed)
    assert life.up(bed, None) == SHAPE
    assert life.up(bed, SHAPE) == SHAPE
    assert ([machine.init_pid(node) for node in bed.nodes()], members(bed)) == before
    with pytest.raises(BedError, match=r"test is up \(managers: 1, workers: 1.*managers: 3"):
        life.up(bed, Shape(managers=3))


def test_a_second_bed_on_the_same_network_is_refused(bed: Bed) -> None:
    """Before anything is made, and with the way out."""
    second = Bed("second", bed.network, bed.cache)
    with pytest.raises(BedError, match=r"192\.168\.79\.0/24: this machine reaches it by test-host.*SHOAL_BED_NETWORK"):
        life.up(second, SHAPE)
    assert life.left_of(second) == []


def test_somebody_elses_swarm_is_one_manager_alone(bed: Bed) -> None:
    """What DOCKER_HOST names is refused with the reason where tests can't run on it."""
    with pytest.raises(BedError, match="a Swarm of 2 nodes; expected one node, or the bed"):
        find_swarm({"DOCKER_HOST": f"unix://{bed.node(1).socket}"})
    with pytest.raises(BedError, match="expected a Swarm's manager; make it one with: docker swarm init"):
        find_swarm({"DOCKER_HOST": f"unix://{bed.node(2).socket}"})


def test_a_killed_node_comes_back_as_who_it_was(bed: Bed) -> None:
    """All of it dies at once; its disk is kept."""
    worker, before = bed.node(2), members(bed)["n2"]
    machine.kill(worker)
    assert [state.state for state in life.status(bed)] == ["running", "killed"]
    wait_until(lambda: not is_ready(bed, "n2"), "the manager to notice")
    wait_until(lambda: serves(bed.node(1)), "an answer of n1")
    life.start(worker)
    wait_until(lambda: members(bed)["n2"] == before, "n2 to be who it was")
    wait_until(lambda: is_settled(bed), "n2 to serve")


def test_a_cut_node_lives_on_alone(bed: Bed) -> None:
    """Nobody reaches it, its processes go on; healed, it is a member again."""
    worker = bed.node(2)
    before = machine.init_pid(worker)
    network.set_cable(worker, plugged=False)
    assert not serves(worker)
    assert life.status(bed)[1].state == "cut"
    wait_until(lambda: not is_ready(bed, "n2"), "the manager to notice")
    network.set_cable(worker, plugged=True)
    wait_until(lambda: is_settled(bed), "n2 to be back")
    assert machine.init_pid(worker) == before


def test_a_frozen_node_answers_nothing(bed: Bed) -> None:
    """Not even its daemon does; thawed, it goes on where it was."""
    worker = bed.node(2)
    cgroups.set_frozen(worker, True)
    try:
        assert not serves(worker)
        assert life.status(bed)[1].state == "frozen"
    finally:
        cgroups.set_frozen(worker, False)
    wait_until(lambda: is_settled(bed), "n2 to be back")


def test_containers_outlive_their_daemon(bed: Bed) -> None:
    """A killed dockerd takes nothing with it that serves."""
    worker = bed.node(2)
    dockerd.kill(worker)
    wait_until(lambda: life.status(bed)[1].state == "without dockerd", "dockerd to be gone")
    wait_until(lambda: serves(worker), "an answer of the container")  # a busy machine may miss its time-out
    with pytest.raises(BedError, match=r"n2: its Docker does not answer .*dockerd\.log"):
        call(worker, "GET", "/info")
    life.start_dockerd(worker)
    wait_until(lambda: is_settled(bed), "n2 to be back")


def test_an_archive_is_loaded_into_every_node(bed: Bed, tmp_path: Path) -> None:
    """As `docker save` writes it."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/name").write_text("shoal")
    image = render_image("test/tiny:1", [write_layer(tmp_path / "tree", tmp_path / "layer.tar", {})], {"Cmd": ["sh"]})
    write_archive(image, tmp_path / "image.tar")
    loading.load_files(bed.nodes(), [tmp_path / "image.tar"])
    for node in bed.nodes():
        assert call(node, "GET", "/images/test/tiny:1/json")["Id"] == image.image_id
        call(node, "DELETE", "/images/test/tiny:1")


def test_the_swarm_knows_the_nodes_generic_resources(bed: Bed) -> None:
    """As they were given, by node."""
    (node,) = (node for node in call(bed.node(1), "GET", "/nodes") if node["Description"]["Hostname"] == "n2")
    resources = node["Description"]["Resources"]["GenericResources"]
    named = [resource["NamedResourceSpec"] for resource in resources]
    assert sorted(named, key=json.dumps) == [{"Kind": "gpu", "Value": "GPU-1"}, {"Kind": "gpu", "Value": "GPU-2"}]


def test_the_registry_asks_for_its_password(bed: Bed) -> None:
    """Without one it refuses."""
    url = f"http://{bed.bridge_address}:5000/v2/"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=5)
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, registry.USER, registry.PASSWORD)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    with opener.open(url, timeout=5) as answer:
        assert answer.status == 200


def test_nodes_reach_the_host_and_nothing_behind_it(bed: Bed) -> None:
    """The host's leg is in their network; what else the host has is beyond it."""
    beyond = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    others = [address for address in beyond if ":" not in address and not address.startswith("192.168.")]
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]

        def reaches(address: str) -> bool:
            connect = ["timeout", "2", "bash", "-c", f"</dev/tcp/{address}/{port}"]
            return (
                subprocess.run(machine.inside(bed.node(2), connect), check=False, capture_output=True).returncode == 0
            )

        assert reaches(bed.host_address)
        assert [address for address in others if reaches(address)] == []


def test_three_managers_are_a_quorum(bed: Bed) -> None:
    """Another shape, after the first is gone: nothing of it is left, and images are."""
    life.down(bed)
    assert (life.left_of(bed), life.status(bed), bed.nodes()) == ([], [], [])
    life.down(bed)
    life.up(bed, Shape(managers=3, workers=0, heartbeat_s=1.0))
    wait_until(lambda: [state.role for state in life.status(bed)] == ["manager"] * 3, "three managers")
    assert {image["RepoTags"][0] for image in call(bed.node(1), "GET", "/images/json")} == {
        "shoal-testbed/agents:latest"
    }
    assert call(bed.node(1), "GET", "/services") == []
    machine.kill(bed.node(3))
    forming.form(bed.nodes()[:2], Shape(managers=2, workers=0))  # two of three still agree
    life.down(bed)
    assert life.left_of(bed) == []
