"""What the first `up` puts on a Swarm, with somebody else at it at the same time, or broken off in between."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from shoal.engines.swarm.install import Keys, find_keys, find_own, install
from shoal.errors import EngineError
from tests.fake_docker import NO_LABELS, FakeDocker

ANN = Keys(b"ann's certificate", b"ann's key", b"ann's token")
BOB = Keys(b"bob's certificate", b"bob's key", b"bob's token")


class BreaksOff(FakeDocker):
    """The same Swarm as another one, until the certificate would be stored."""

    def __init__(self, swarm: FakeDocker) -> None:
        super().__init__()
        self.kept = swarm.kept

    async def create_config(self, name: str, data: bytes, labels: Mapping[str, str] = NO_LABELS) -> str:
        raise asyncio.CancelledError


async def test_all_of_one() -> None:
    """Network, keys and controller, once: a second time finds them and changes nothing."""
    docker = FakeDocker()
    own = await install(docker, "shop", "shoal:1", 7444, ANN, ())
    assert await find_keys(docker, "shop") == ANN.ca_certificate
    assert set(own.secrets) == {"ca-key", "join-token", "seed"} and set(own.configs) == {"ca"}
    before = {kind: dict(each) for kind, each in docker.kept.items()}
    assert await install(docker, "shop", "shoal:1", 7444, None, ("a",)) == own
    assert docker.kept == before


async def test_the_controller_is_given_what_the_agents_secrets_hold() -> None:
    """It is started anew for a content that it does not have, and the caller waits until the one before has ended."""
    docker = FakeDocker()
    await install(docker, "shop", "shoal:1", 7444, ANN, ())
    (before,) = docker.kept["services"].values()
    docker.running = [{"ID": "t1", "Status": {"State": "running"}}]
    await install(docker, "shop", "shoal:1", 7444, None, ("a",))
    assert list(docker.kept["services"].values()) == [before]
    for digest in ("a", "b"):
        await docker.create_secret(f"shop_KEY_{digest}", b"x", {"shoal.fleet": "shop", "shoal.digest": digest})
    async with asyncio.TaskGroup() as tasks:
        installing = tasks.create_task(install(docker, "shop", "shoal:1", 7444, None, ("a",)))
        while docker.writes == 0:
            await asyncio.sleep(0)
        assert not installing.done()
        docker.running = [{"ID": "t1", "Status": {"State": "shutdown"}}, {"ID": "t2", "Status": {"State": "running"}}]
    (after,) = docker.kept["services"].values()
    given = [each["SecretName"] for each in after["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"]]
    assert "shop_KEY_a" in given and "shop_KEY_b" not in given  # which nobody names any more


async def test_of_two_at_once_one_counts() -> None:
    """Whose certificate is there; the keys of the other are nobody's."""
    docker = FakeDocker()
    await install(docker, "shop", "shoal:1", 7444, ANN, ())
    own = await install(docker, "shop", "shoal:1", 7444, BOB, ())
    assert await find_keys(docker, "shop") == ANN.ca_certificate
    assert own.secrets == (await find_own(docker, "shop")).secrets
    other = await install(FakeDocker(), "shop", "shoal:1", 7444, BOB, ())
    assert own.called["ca-key"] != other.called["ca-key"]


async def test_who_breaks_off_leaves_nothing_that_counts() -> None:
    """Keys without their certificate are none: the next one makes his own, and the controller gets those that belong
    together."""
    docker = FakeDocker()
    with pytest.raises(asyncio.CancelledError):
        await install(BreaksOff(docker), "shop", "shoal:1", 7444, ANN, ())
    assert await find_keys(docker, "shop") is None and docker.kept["secrets"]
    own = await install(docker, "shop", "shoal:1", 7444, BOB, ())
    assert await find_keys(docker, "shop") == BOB.ca_certificate
    alone = await install(FakeDocker(), "shop", "shoal:1", 7444, BOB, ())
    assert own.called == alone.called


async def test_a_certificate_without_its_keys_is_told() -> None:
    """Somebody removed them by hand."""
    docker = FakeDocker()
    await install(docker, "shop", "shoal:1", 7444, ANN, ())
    docker.kept["secrets"].clear()
    with pytest.raises(EngineError, match="only a part of the keys of fleet shop"):
        await install(docker, "shop", "shoal:1", 7444, None, ("a",))
