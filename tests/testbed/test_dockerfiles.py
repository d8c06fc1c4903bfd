"""The repository's Dockerfiles build, on the bed's Docker, and what they build runs as nobody special."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from testbed.build_base import build_base
from testbed.images import REPOSITORY
from testbed.swarm import loading
from testbed.swarm.bed import Bed
from tests.swarm_bed import Swarm, skip

BUILD_S = 600

CASES = {
    "docker/Dockerfile": "import shoal.cli.main, shoal.proxy.gateway, envoy; shutil.which('nats-server') or 1/0",
    "examples/warehouse/Dockerfile": "import warehouse.ingest, warehouse.pictures; shutil.which('uvicorn') or 1/0",
    "tests/conformance/agents/Dockerfile": "import shoal.sdk.rabbitmq.link; os.stat('/agents/http_agent.py')",
}


@pytest.mark.parametrize("dockerfile", CASES)
def test_a_dockerfile_builds_what_runs(swarm: Swarm, dockerfile: str) -> None:
    """With a base that has the wheels, for want of a package index; its user may write where volumes go."""
    if swarm.bed is None:
        skip("the fixture has built the Dockerfiles already")
    base = build_base(swarm.bed.cache)
    loading.load_images(swarm.bed.nodes()[:1], [base])
    build = ["build", "--quiet", "--build-arg", f"BASE={base.tag}", "--file", dockerfile, str(REPOSITORY)]
    image_id = docker(swarm.bed, *build)
    try:
        state = "/var/lib/shoal" if dockerfile.startswith("docker/") else "/data"
        program = f"import os, pathlib, shutil; {CASES[dockerfile]}; pathlib.Path('{state}/x').write_text('x')"
        command = ["python", "-c", f"{program}; print(os.getuid())"]
        assert docker(swarm.bed, "run", "--rm", "--read-only", "--volume", state, image_id, *command) == "10001"
    finally:
        docker(swarm.bed, "image", "rm", image_id)


def docker(bed: Bed, *arguments: str) -> str:
    """Docker's command line on the first node, with its old builder: the new one is a package of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "testbed.swarm", "docker", bed.node(1).name, *arguments],
        cwd=REPOSITORY, env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True, text=True, check=False, timeout=BUILD_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]
