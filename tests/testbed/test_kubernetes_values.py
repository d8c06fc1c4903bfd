"""What a Kubernetes bed is made of, as values: nothing is started."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from testbed.commands import BedError
from testbed.kubernetes import binaries, life
from testbed.kubernetes.__main__ import main
from testbed.kubernetes.agents import addons_of
from testbed.kubernetes.authority import kubeconfig_of, make_keys
from testbed.kubernetes.bed import KubeBed, KubeShape, pods_of
from testbed.kubernetes.control_plane import part_of
from testbed.kubernetes.daemons import Daemon
from testbed.kubernetes.simulation import simulate, simulated_node

MODULES = Path(binaries.__file__).parent / "modules"


@pytest.fixture
def bed(tmp_path: Path) -> KubeBed:
    made = KubeBed("kt", "10.9.8", tmp_path)
    made.directory.mkdir(parents=True)
    return made


def test_a_bed_remembers_what_it_was_made_of(bed: KubeBed) -> None:
    assert bed.nodes() == [] and bed.kube_shape.read() is None
    bed.kube_shape.write(KubeShape(3, "1.36.3"))
    assert [(node.name, node.address, pods_of(node)) for node in bed.nodes()] == [
        ("n1", "10.9.8.1", "10.175.1.0/24"),
        ("n2", "10.9.8.2", "10.175.2.0/24"),
        ("n3", "10.9.8.3", "10.175.3.0/24"),
    ]
    assert bed.kube_shape.read() == KubeShape(3, "1.36.3")
    bed.kube_shape.write(None)
    assert bed.kube_shape.read() is None


def test_pods_have_the_usual_addresses_on_the_usual_network(bed: KubeBed) -> None:
    """And no two beds the same ones."""
    assert KubeBed("kube", "192.168.77", bed.cache).pods == "10.244.0.0/16"
    assert bed.pods == "10.175.0.0/16"


def test_what_there_is_not_is_refused(bed: KubeBed) -> None:
    with pytest.raises(BedError, match="found 0 nodes"):
        KubeShape(0)
    with pytest.raises(BedError, match=r"10\.9\.185: its pods would have the addresses of services"):
        KubeBed("kt", "10.9.185", bed.cache)
    with pytest.raises(BedError, match="expected one of etcd"):
        part_of(bed, "kubelet")
    with pytest.raises(BedError, match=r"expected one of 1\.34\.4, 1\.36\.3"):
        binaries.binaries(bed.cache, "1.2.3")


def test_keys_are_made_once_and_fit_together(bed: KubeBed) -> None:
    """The API server's certificate names its address; a kubeconfig holds the authority, so that it works anywhere."""
    directory = make_keys(bed)
    served = (directory / "apiserver.crt").read_bytes()
    certificate = x509.load_pem_x509_certificate(served)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "10.9.8.253" in map(str, names.get_values_for_type(x509.IPAddress))
    authority = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
    certificate.verify_directly_issued_by(authority)
    cluster = json.loads(kubeconfig_of(bed, "n1").read_text())["clusters"][0]["cluster"]
    assert cluster["server"] == "https://10.9.8.253:6443" and "certificate-authority-data" in cluster
    assert bed.kubeconfig.stat().st_mode & 0o777 == 0o600
    make_keys(bed)
    assert (directory / "apiserver.crt").read_bytes() == served


def test_every_version_has_its_modules_pinned() -> None:
    """Kubernetes itself, and each of its own modules by the same release."""
    for version in binaries.VERSIONS:
        text = (MODULES / version / "go.mod").read_text()
        assert f"k8s.io/kubernetes v{version}\n" in text
        replaced = re.findall(r"^\s*k8s\.io/\S+ => k8s\.io/\S+ (\S+)$", text, re.MULTILINE)
        assert len(replaced) > 20 and set(replaced) == {f"v0.{version.partition('.')[2]}"}
        assert (MODULES / version / "go.sum").stat().st_size > 10_000


def test_addons_are_whole_but_for_the_beds_address() -> None:
    """metrics-server is asked at the address where it runs; every object has a name."""
    text = addons_of(KubeBed("kt", "10.9.8", Path("/nowhere")))
    objects = list(yaml.safe_load_all(text))
    assert all(each["apiVersion"] and each["metadata"]["name"] for each in objects) and "$" not in text
    (slices,) = [each for each in objects if each["kind"] == "EndpointSlice"]
    assert slices["endpoints"][0]["addresses"] == ["10.9.8.253"]


@pytest.mark.parametrize("name", binaries.PROGRAMS)
def test_every_program_has_its_modules_pinned(name: str) -> None:
    assert {"go.mod", "go.sum"} < {file.name for file in (MODULES / name).iterdir()}


def test_kubectl_has_its_options_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are its own, though they come before its verb."""
    ran: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["testbed.kubernetes", "kubectl", "-n", "shop", "get", "pods", "--help"])
    monkeypatch.setattr(os, "execvp", lambda _, words: ran.append(words) or sys.exit(0))
    monkeypatch.setattr(life, "prepare", lambda bed, version: tmp_path)
    with pytest.raises(SystemExit):
        main()
    assert ran[0][0] == str(tmp_path / "kubectl") and ran[0][3:] == ["-n", "shop", "get", "pods", "--help"]


def test_a_daemon_is_found_again_and_ended(tmp_path: Path) -> None:
    """Once, though it is started twice; also by another object of the same name."""
    first = Daemon(tmp_path, "sleeper")
    first.start(["sleep", "600"])
    pid = first.pid
    first.start(["sleep", "600"])
    assert pid is not None and Daemon(tmp_path, "sleeper").pid == pid
    Daemon(tmp_path, "sleeper").stop()
    assert first.pid is None


def test_a_simulated_node_is_kept_from_what_does_not_ask_for_it() -> None:
    """By its taint; KWOK knows it by its annotation, and the bed's own pods by its label."""
    node = simulated_node("sim-2", 1)
    assert node["spec"]["taints"] == [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]
    assert node["metadata"]["annotations"] == {"kwok.x-k8s.io/node": "fake"}
    labels = node["metadata"]["labels"]
    assert (labels["type"], labels["topology.kubernetes.io/zone"]) == ("kwok", "z2")
    assert labels["kwok.x-k8s.io/node"] == "fake"  # by which an agent's placement asks for it


def test_simulated_nodes_are_asked_for_in_reason(bed: KubeBed) -> None:
    with pytest.raises(BedError, match="found -1 simulated nodes, expected 0 to 5000"):
        simulate(bed, -1)
    with pytest.raises(BedError, match="the bed is not up"):
        simulate(bed, 1)
