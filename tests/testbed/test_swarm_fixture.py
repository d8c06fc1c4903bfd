"""What tests are given where there is a Swarm, and what they are told where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.engines.swarm.docker import Docker
from shoal.errors import EngineError
from testbed.commands import BedError
from testbed.swarm.engine_api import call
from tests.swarm_bed import Swarm, find_swarm, skip


async def test_the_swarm_has_a_manager_and_every_image(swarm: Swarm) -> None:
    """Its endpoint is a manager's; each node has each image, by ID."""
    async with Docker(swarm.endpoint) as docker:
        names = {node["Description"]["Hostname"] for node in await docker.nodes()}
        assert names == set(swarm.addresses)
        for image in (swarm.shoal_image, swarm.agents_image, swarm.warehouse_image):
            assert (await docker.image(image))["Id"] == image
    for node in swarm.bed.nodes() if swarm.bed else ():
        for image in (swarm.shoal_image, swarm.agents_image, swarm.warehouse_image):
            assert call(node, "GET", f"/images/{image}/json")["Config"]["User"] == "10001:10001"


def test_a_missing_bed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is skipped says what was missing."""
    monkeypatch.setenv("SHOAL_BED_NAME", "nosuch")
    with pytest.raises(BedError, match=r"no Swarm: DOCKER_HOST names none, and of the bed \(make swarm-up\) it "):
        find_swarm({})


def test_a_docker_that_is_not_there_is_told(tmp_path: Path) -> None:
    """DOCKER_HOST counts before the bed."""
    with pytest.raises(EngineError, match=r"docker\.sock"):
        find_swarm({"DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "HOME": str(tmp_path)})


def test_required_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """With SHOAL_REQUIRE=swarm nothing passes by for want of one."""
    monkeypatch.setenv("SHOAL_REQUIRE", "kubernetes,swarm")
    with pytest.raises(pytest.fail.Exception, match="SHOAL_REQUIRE=swarm, but there is none"):
        skip("there is none")
    monkeypatch.setenv("SHOAL_REQUIRE", "")
    with pytest.raises(pytest.skip.Exception, match="there is none"):
        skip("there is none")
