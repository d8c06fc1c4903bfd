"""What is removed of a fleet, and who is waited for while it is, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest

from shoal.engines.swarm.docker.frames import RawLine
from shoal.engines.swarm.removal import remove_all
from shoal.errors import EngineError
from tests.fake_docker import NO_LABELS, FakeDocker
from tests.simulation.virtual_time import run_virtually

FLEET = {"shoal.fleet": "shop"}


class Nodes(FakeDocker):
    """Three nodes, of which `n3` is not heard of; `sweeps` has by node when its sweep ends, and how."""

    def __init__(self, **sweeps: tuple[float, str]) -> None:
        super().__init__()
        self.sweeps = sweeps
        self.hung: list[dict[str, Any]] = []  # tasks that Swarm takes for running

    async def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "ID": node,
                "Description": {"Hostname": node.upper()},
                "Status": {"State": "down" if node == "n3" else "ready"},
                "Spec": {"Availability": "drain" if node == "n4" else "active"},
            }
            for node in ("n1", "n2", "n3", "n4")
        ]

    async def tasks(
        self, labels: Mapping[str, str] = NO_LABELS, **filters: str | Sequence[str]
    ) -> list[dict[str, Any]]:
        if "service" not in filters:
            return self.hung
        now = asyncio.get_running_loop().time()
        return [
            {"ID": node, "NodeID": node, "Status": {"State": state if now >= at else "running", "Err": "no room"}}
            for node, (at, state) in self.sweeps.items()
        ]

    async def remove_network(self, name: str) -> None:
        await self._remove("networks", name)

    async def service_logs(
        self, name: str, *, follow: bool = False, since: float | None = None, tail: int | None = None
    ) -> AsyncGenerator[RawLine]:
        yield RawLine("stderr", "shop_stock: volume is in use", None, "n2", "n2")


def removed(docker: Nodes, *, data: bool) -> float:
    """How long it took."""

    async def work() -> float:
        await docker.create_network("shop", FLEET)
        await docker.create_service({"Name": "shop_web", "Labels": {**FLEET, "shoal.role": "revision"}})
        await docker.create_service({"Name": "shop_shoal-state", "Labels": {**FLEET, "shoal.role": "state"}})
        await docker.create_secret("shop_KEY", b"x", FLEET)
        await docker.create_config("shop_shoal-image", b"shoal:1", {**FLEET, "shoal.key": "image"})
        await remove_all(docker, "shop", data=data)
        return asyncio.get_running_loop().time()

    return run_virtually(work())


def test_with_the_data_all_of_it_goes_once_every_node_that_is_there_was_swept() -> None:
    """Not the one that is away, nor for the sake of one that takes no tasks."""
    docker = Nodes(n1=(1.0, "complete"), n2=(5.0, "complete"), n4=(0.0, "complete"))
    docker.hung = [{"ID": "t3", "NodeID": "n3", "Status": {"State": "running"}}]
    assert 5.0 <= removed(docker, data=True) < 6.0
    assert not any(docker.kept.values())


def test_once_all_is_gone_nobody_needs_an_image_to_look_again() -> None:
    """No node is asked for volumes a second time."""
    docker = Nodes(n1=(1.0, "complete"), n2=(1.0, "complete"))
    removed(docker, data=True)
    docker.sweeps = {}  # a sweep would never end
    run_virtually(remove_all(docker, "shop", data=True))
    assert not any(docker.kept.values())


def test_without_the_data_the_state_stays() -> None:
    docker = Nodes()
    removed(docker, data=False)
    assert set(docker.kept["services"]) == {"shop_shoal-state"} and docker.kept["secrets"]


def test_what_could_not_go_is_told_and_nothing_else_of_the_data_goes() -> None:
    """So that it can be tried again."""
    docker = Nodes(n1=(1.0, "complete"), n2=(1.0, "failed"))
    with pytest.raises(EngineError, match=r"could be removed from N2:\n  no room\n  shop_stock: volume is in use"):
        removed(docker, data=True)
    assert docker.kept["secrets"]


def test_a_task_that_does_not_end_is_named() -> None:
    """After a minute."""
    docker = Nodes()
    docker.hung = [{"ID": "t1", "NodeID": "n1", "Status": {"State": "running"}}]
    with pytest.raises(EngineError, match="did not end within 60 s: t1"):
        removed(docker, data=False)
