"""What tests are given where there is a Kubernetes, and what they are told where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoal.engines.kubernetes.api import Kubernetes
from shoal.errors import EngineError
from testbed.commands import BedError
from tests.kubernetes_cluster import Cluster, ClusterImages, find_cluster, skip


@pytest.fixture
def somebodys(tmp_path: Path) -> Path:
    """A kubeconfig whose current context is production."""
    named = ("production", "tests")
    document = {
        "current-context": "production",
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example"}} for name in named],
        "users": [{"name": "ann", "user": {"token": "t"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "ann"}} for name in named],
    }
    file = tmp_path / "config"
    file.write_text(json.dumps(document))
    return file


async def test_the_cluster_answers_and_has_every_image(kubernetes: Cluster, kubernetes_images: ClusterImages) -> None:
    async with Kubernetes(kubernetes.access, "default") as api:
        assert await api.version() >= (1, 30)
    names = (kubernetes_images.shoal, kubernetes_images.agents, kubernetes_images.warehouse)
    assert [name.rpartition(":")[0].rpartition("/")[2] for name in names] == ["shoal", "agents", "warehouse"]
    on_bed = kubernetes.bed is not None  # where they are named by what they are
    assert all(name.endswith(":latest") is not on_bed for name in names)


def test_the_current_context_is_not_taken(somebodys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG alone names no cluster to test on."""
    monkeypatch.setenv("SHOAL_KUBE_BED_NAME", "nosuch")
    with pytest.raises(BedError, match=r"no Kubernetes: .*the current one is not taken.* the bed \(make kube-up\) it "):
        find_cluster({"KUBECONFIG": str(somebodys)})


def test_a_context_is_named(somebodys: Path) -> None:
    """Before the bed; one that isn't there is told."""
    found = find_cluster({"KUBECONFIG": str(somebodys), "SHOAL_TEST_CONTEXT": "tests", "SECRET": "s"})
    assert (found.access.server, found.context, found.bed) == ("https://tests.example", "tests", None)
    assert found.environ == {"KUBECONFIG": str(somebodys)}
    with pytest.raises(EngineError, match="nosuch"):
        find_cluster({"KUBECONFIG": str(somebodys), "SHOAL_TEST_CONTEXT": "nosuch"})


def test_required_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_REQUIRE", "kubernetes")
    with pytest.raises(pytest.fail.Exception, match="SHOAL_REQUIRE=kubernetes, but there is none"):
        skip("there is none")
