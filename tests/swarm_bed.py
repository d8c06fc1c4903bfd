"""The Swarm that tests run on: this machine's bed where it is up (`make swarm-up`), or the one that DOCKER_HOST names.

Where there is none, what needs one is skipped, and says what was missing; with SHOAL_REQUIRE=swarm that is a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from shoal.engines.swarm.docker import Docker, Endpoint, find_endpoint
from shoal.errors import EngineError
from testbed.commands import BedError
from testbed.images import REPOSITORY, build_images
from testbed.swarm import life, loading
from testbed.swarm.bed import Bed
from testbed.swarm.environment import bed_from_environment
from tests.bed_turns import turn_on
from tests.required import skip_without

BUILD_S = 900


@dataclass(frozen=True)
class Swarm:
    """One Swarm with the images of this checkout on every node.

    `endpoint` is of a manager, `endpoints` by the node's host name of each. `addresses` has, by the same, where its
    host-mode ports answer. `host` is where containers reach this machine. The images are IDs. `bed` is None for
    somebody else's Swarm, whose nodes can't be killed or cut off.
    """

    endpoint: Endpoint
    endpoints: Mapping[str, Endpoint]
    addresses: Mapping[str, str]
    host: str
    shoal_image: str
    agents_image: str
    warehouse_image: str
    bed: Bed | None

    @contextlib.contextmanager
    def to_be_broken(self) -> Generator[Bed]:
        """The bed, whose nodes may be killed, cut off and frozen while no other test uses it; afterwards it is whole
        again.

        Skips on a Swarm that isn't the bed.
        """
        if self.bed is None:
            skip("its nodes are killed and cut off, which only the bed's may be (make swarm-up)")
        with turn_on(self.bed).alone():
            try:
                yield self.bed
            finally:
                with life.held(self.bed):
                    life.up(self.bed, None)


@pytest.fixture(scope="session")
def swarm() -> Swarm:
    """The Swarm of this session."""
    return find_or_skip(os.environ)


def find_or_skip(environ: Mapping[str, str]) -> Swarm:
    """What is there; the test that asks is skipped, and says what was missing, where there is nothing."""
    try:
        return find_swarm(environ)
    except (BedError, EngineError) as error:
        skip(str(error))


def skip(reason: str) -> NoReturn:
    """A test can't run for want of a Swarm."""
    skip_without("swarm", reason)


def find_swarm(environ: Mapping[str, str]) -> Swarm:
    """What is there, with its images. Raises BedError or EngineError, which say what was missing."""
    bed = bed_from_environment()
    sockets = {f"unix://{node.socket}" for node in bed.nodes()}
    named = environ.get("DOCKER_HOST")
    if named is not None and named not in sockets:
        return _named(find_endpoint(None, environ))
    if os.geteuid() != 0 or not sockets:
        why = "it is not up" if os.geteuid() == 0 else "it needs root"
        raise BedError(f"no Swarm: DOCKER_HOST names none, and of the bed (make swarm-up) {why}; see docs/testbed.md")
    return _on_bed(bed)


def _on_bed(bed: Bed) -> Swarm:
    for state in life.status(bed):
        if state.state != "running" or state.role not in ("manager", "worker"):
            raise BedError(f"{state.name} of the bed is {state.state}; `make swarm-up` makes it whole")
    images = build_images(bed.cache)
    loading.load_images(bed.nodes(), images.all())
    endpoints = {node.name: Endpoint(f"unix://{node.socket}", said_by="the bed") for node in bed.nodes()}
    return Swarm(
        endpoint=endpoints[bed.node(1).name],
        endpoints=endpoints,
        addresses={node.name: node.address for node in bed.nodes()},
        host=bed.host_address,
        shoal_image=images.shoal.image_id,
        agents_image=images.agents.image_id,
        warehouse_image=images.warehouse.image_id,
        bed=bed,
    )


def _named(endpoint: Endpoint) -> Swarm:
    """Somebody's Swarm of one node, such as Docker Desktop's: images are built there, so others would have none."""
    info, host = asyncio.run(_look_at(endpoint))
    here, nodes = info["Swarm"]["LocalNodeState"], info["Swarm"].get("Nodes")
    if here != "active" or not info["Swarm"].get("ControlAvailable"):
        raise BedError(f"DOCKER_HOST={endpoint.host}: expected a Swarm's manager; make it one with: docker swarm init")
    if nodes != 1:
        raise BedError(f"DOCKER_HOST={endpoint.host}: a Swarm of {nodes} nodes; expected one node, or the bed")
    published = "127.0.0.1" if endpoint.socket is not None else endpoint.url.hostname
    return Swarm(
        endpoint=endpoint,
        endpoints={str(info["Name"]): endpoint},
        addresses={str(info["Name"]): published or "127.0.0.1"},
        host=host,
        shoal_image=_docker_build("docker/Dockerfile"),
        agents_image=_docker_build("tests/conformance/agents/Dockerfile"),
        warehouse_image=_docker_build("examples/warehouse/Dockerfile"),
        bed=None,
    )


async def _look_at(endpoint: Endpoint) -> tuple[dict[str, Any], str]:
    """What it says of itself, and the address at which its containers reach its machine."""
    async with Docker(endpoint) as docker:
        bridges = [each for each in await docker.networks() if each["Name"] == "docker_gwbridge"]
        return await docker.info(), bridges[0]["IPAM"]["Config"][0]["Gateway"] if bridges else "127.0.0.1"


def _docker_build(dockerfile: str) -> str:
    """The ID of what the file makes of this checkout."""
    command = ["docker", "build", "--quiet", "--file", dockerfile, "."]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=BUILD_S)
    except FileNotFoundError:
        raise BedError("docker: not found; the images for DOCKER_HOST are built by Docker's command line") from None
    if done.returncode != 0:
        raise BedError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()
