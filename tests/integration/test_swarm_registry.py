"""Images from a registry that asks for a password: agents' and Shoal's own, pulled by each node of a real Swarm."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typed import Typed

from testbed.swarm import registry
from tests.swarm_bed import Swarm, skip

PORT, ADMIN_PORT = 18085, 17449
NODES = 3


@pytest.fixture
def images(swarm: Swarm) -> Generator[tuple[str, str]]:
    """Shoal's own and the agents', by names that are new to every node."""
    if swarm.bed is None:
        skip("the registry is the test bed's (make swarm-up)")
    registry.start(swarm.bed)
    tag = f"{time.time_ns()}"
    try:
        for name, image in (("shoal", swarm.shoal_image), ("agents", swarm.agents_image)):
            registry.push(swarm.bed, image, f"{name}:{tag}")
        yield f"registry:5000/shoal:{tag}", f"registry:5000/agents:{tag}"
    finally:
        registry.stop(swarm.bed)


def write(home: Path, images: Sequence[str], **more: Any) -> None:
    own = {"port": PORT, "admin_port": ADMIN_PORT, "image": images[0]}
    web = {
        "image": images[1], "command": ["python3", "/agents/http_agent.py"], "port": 8000, "public": "/web",
        "health": "/healthz", "scale": {"min": NODES, "max": NODES}, "placement": {"max_per_node": 1},
    }  # fmt: skip
    spec = {"fleet": "pulled", "engine": "swarm", "swarm": own, "agents": {"web": web}, **more}
    (home / "shoal.yaml").write_text(json.dumps(spec))


def test_images_are_pulled_with_the_credentials_of_the_file(swarm: Swarm, images: tuple[str, str]) -> None:
    """Without them nothing starts, and it is told why; with them all nodes have both images."""
    with tempfile.TemporaryDirectory(prefix="shoal-") as directory:
        typed = Typed(Path(directory), {"DOCKER_HOST": swarm.endpoint.host})
        try:
            write(typed.home, images)
            assert "No such image" in typed("up", "-d", "-y", code=1)
            write(typed.home, images, registries={"registry:5000": {"secret": "PULL"}})
            typed("up", "-d", "-y", PULL=f"{registry.USER}:{registry.PASSWORD}")
            for address in swarm.addresses.values():
                with urllib.request.urlopen(f"http://{address}:{PORT}/web/", timeout=10) as answer:
                    assert answer.status == 200
            found = json.loads(typed("status", "-o", "json"))
            assert [agent["ready"] for agent in found["agents"]] == [NODES]
            assert registry.PASSWORD not in typed("config", PULL=f"{registry.USER}:{registry.PASSWORD}")
        finally:
            typed("down", "--volumes", "-y")
