"""Images from a registry that asks for a password: agents' and Shoal's own, pulled by the nodes of a real cluster."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_namespace import a_namespace
from kubernetes_rig import SERVICE
from kubernetes_shoal import Shoal

from shoal.engines.kubernetes.api.kinds import POD
from testbed.kubernetes import node
from testbed.swarm import registry
from tests.kubernetes_cluster import Cluster, ClusterImages, skip

pytestmark = pytest.mark.kubernetes


@pytest.fixture
async def pulled(
    tmp_path: Path, kubernetes: Cluster, kubernetes_images: ClusterImages
) -> AsyncIterator[tuple[Shoal, ClusterImages]]:
    """A command line, and images by names that are new to every node."""
    if (bed := kubernetes.bed) is None:
        skip("the registry is the test bed's (make kube-up)")
    registry.start(bed)
    tag = f"{time.time_ns()}"
    try:
        shoal, agents = (
            node.push(bed.node(1), image, f"{name}:{tag}")
            for name, image in (("shoal", kubernetes_images.shoal), ("agents", kubernetes_images.agents))
        )
        async with a_namespace() as api:
            yield Shoal(tmp_path, kubernetes, api, shoal), ClusterImages(shoal, agents, warehouse="")
    finally:
        registry.stop(bed)


async def test_images_are_pulled_with_the_credentials_of_the_file(pulled: tuple[Shoal, ClusterImages]) -> None:
    """Without them nothing starts, and it is told why; with them all of Shoal's pods and the agents' have theirs."""
    shoal, images = pulled
    spec = {"agents": {"web": {"image": images.agents, **SERVICE}}}
    said = await shoal.refused(spec=spec)
    assert "ImagePull" in said and "`registries`" in said, said
    shoal.environ["PULL"] = f"{registry.USER}:{registry.PASSWORD}"
    address = images.agents.partition("/")[0]
    await shoal.up({**spec, "registries": {address: {"secret": "PULL"}}})
    pods, _ = await shoal.kubernetes.list(POD)
    assert {each["spec"]["containers"][0]["image"] for each in pods} == {images.shoal, images.agents}
    code, said = await shoal.run("status", "-o", "json", spec=spec)
    assert code == 0 and [each["ready"] for each in json.loads(said)["agents"]] == [1]
