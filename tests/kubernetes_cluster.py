"""The Kubernetes that tests run on: the context that SHOAL_TEST_CONTEXT names, or this machine's bed (`make kube-up`).

A kubeconfig's current context is never taken: it may be somebody's production. Where there is no cluster, what needs
one is skipped, and says what was missing; with SHOAL_REQUIRE=kubernetes that is a failure.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import NoReturn

import pytest

from shoal.engines.kubernetes.api import Access, find_access
from shoal.errors import EngineError
from testbed.commands import BedError
from testbed.images import build_images
from testbed.kubernetes import life, node
from testbed.kubernetes.bed import KubeBed
from testbed.kubernetes.environment import bed_from_environment
from testbed.swarm.life import held
from tests.bed_turns import turn_on
from tests.required import skip_without


@dataclass(frozen=True)
class Cluster:
    """One cluster. `environ` and `context` are how a command finds it, `access` is how this process does.

    `addresses` has each node's by its name, `host` is where pods reach this machine. `bed` is None, and those two are
    empty, for somebody else's cluster, whose nodes can't be killed or cut off.
    """

    access: Access
    environ: Mapping[str, str]
    context: str
    addresses: Mapping[str, str]
    host: str
    bed: KubeBed | None

    @contextlib.contextmanager
    def to_be_broken(self) -> Generator[KubeBed]:
        """The bed, whose nodes and control plane may be broken while no other test uses it; afterwards it is whole
        again.

        Skips on a cluster that isn't the bed.
        """
        if self.bed is None:
            skip("its nodes are killed and cut off, which only the bed's may be (make kube-up)")
        with turn_on(self.bed).alone():
            try:
                yield self.bed
            finally:
                with held(self.bed):
                    life.up(self.bed, None)


@dataclass(frozen=True)
class ClusterImages:
    """This checkout's, by the names under which every node of the cluster has them."""

    shoal: str
    agents: str
    warehouse: str


@pytest.fixture(scope="session")
def kubernetes() -> Cluster:
    """The cluster of this session."""
    return find_or_skip(os.environ)


@pytest.fixture(scope="session")
def kubernetes_images(kubernetes: Cluster) -> ClusterImages:
    """Of this session."""
    return find_images(kubernetes)


def find_images(kubernetes: Cluster) -> ClusterImages:
    """Loaded into the bed's nodes; elsewhere pushed before, to where SHOAL_TEST_IMAGES says."""
    if kubernetes.bed is not None:
        images = build_images(kubernetes.bed.cache)
        node.load_on_each(kubernetes.bed.nodes(), images.all())
        return ClusterImages(*(node.name_of(each) for each in (images.shoal, images.agents, images.warehouse)))
    if (prefix := os.environ.get("SHOAL_TEST_IMAGES")) is None:
        skip("SHOAL_TEST_IMAGES does not say where this checkout's images are, such as ghcr.io/acme/shoal-tests")
    return ClusterImages(*(f"{prefix}/{name}:latest" for name in ("shoal", "agents", "warehouse")))


def find_or_skip(environ: Mapping[str, str]) -> Cluster:
    """What is there; the test that asks is skipped, and says what was missing, where there is nothing."""
    try:
        return find_cluster(environ)
    except (BedError, EngineError) as error:
        skip(str(error))


def skip(reason: str) -> NoReturn:
    """A test can't run for want of a cluster."""
    skip_without("kubernetes", reason)


def find_cluster(environ: Mapping[str, str]) -> Cluster:
    """Raises BedError or EngineError, which say what was missing."""
    if context := environ.get("SHOAL_TEST_CONTEXT"):
        own = {name: environ[name] for name in ("KUBECONFIG", "HOME") if name in environ}
        return Cluster(find_access(context, own), own, context, addresses={}, host="", bed=None)
    bed = bed_from_environment()
    if os.geteuid() != 0 or not bed.nodes():
        why = "it is not up" if os.geteuid() == 0 else "it needs root"
        raise BedError(
            "no Kubernetes: SHOAL_TEST_CONTEXT names no context of a kubeconfig (the current one is not taken), "
            f"and of the bed (make kube-up) {why}; see docs/testbed.md"
        )
    for name, state in life.status(bed):
        if state not in ("runs", "ready"):
            raise BedError(f"{name} of the bed is {state}; `make kube-up` makes it whole")
    own = {"KUBECONFIG": str(bed.kubeconfig)}
    addresses = {each.name: each.address for each in bed.nodes()}
    return Cluster(find_access(bed.name, own), own, bed.name, addresses, bed.host_address, bed)
