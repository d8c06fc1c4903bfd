"""Fleets on a Swarm by the command line: what is stored there and installed, with a fake in the place of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.api.client import Client, socket_path
from shoal.cli.contexts import FleetContext, save_context
from shoal.cli.local.place import LocalPlace
from shoal.cli.options import Common
from shoal.cli.swarm import installation
from shoal.cli.swarm.place import SwarmPlace
from shoal.control.document_store import DocumentStore
from shoal.control.store import StoredFleet
from shoal.control.swarm_keeper import SwarmKeeper
from shoal.engines.swarm.docker import Docker, DockerUnavailable
from shoal.spec.model import Fleet
from tests.fake_docker import FakeDocker
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import FakeController

TEXT = """fleet: warehouse
image: sha256:abc
agents:
  web: {command: serve, port: 80, volumes: ["data:/data"], secrets: [TOKEN]}
environments:
  staging: {engine: swarm, docker_context: lab}
"""


class Swarm:
    """What the installer was asked."""

    def __init__(self) -> None:
        self.docker = FakeDocker()
        self.asked: list[tuple[str, object]] = []
        self.known: dict[str, bytes] = {}

    async def install(self, docker: Docker, fleet: Fleet, named: Collection[str], known: Mapping[str, bytes]) -> None:
        self.asked.append(("install", fleet.fleet))
        self.known = dict(known)

    async def remove(self, docker: Docker, fleet: str, *, data: bool) -> None:
        self.asked.append(("remove", data))
        self.docker.in_use.clear()

    async def stored(self) -> StoredFleet:
        found = await DocumentStore(SwarmKeeper(self.docker, "warehouse")).read_fleet()
        assert found is not None
        return found


@pytest.fixture
def swarm(directory: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Swarm:
    """A Swarm, a file with an environment on it, and a value for its secret."""
    found = Swarm()

    @asynccontextmanager
    async def docker(_: SwarmPlace) -> AsyncGenerator[Docker]:
        yield found.docker

    def installer(environ: Mapping[str, str], context: str | None) -> Swarm:
        assert context == "lab"
        return found

    monkeypatch.setattr(SwarmPlace, "docker", docker)
    monkeypatch.setattr(installation, "SwarmInstaller", installer)
    monkeypatch.setenv("TOKEN", "s3cret")
    (home / "shoal.yaml").write_text(TEXT)
    return found


@pytest.fixture
def reached(fake: FakeController, directory: Path, monkeypatch: pytest.MonkeyPatch) -> FakeController:
    """A controller that answers, however it is reached."""
    fake.status = replace(fake.status, generation=1, observed_generation=1)
    fake.watched = [fake.status]
    monkeypatch.setattr(SwarmPlace, "client", lambda _: Client(socket_path(directory)))
    return fake


def test_up_stores_installs_and_waits(swarm: Swarm, reached: FakeController, directory: Path, run: Run) -> None:
    """State and secrets are the Swarm's, and nothing is kept on this machine; from wherever it is started again."""
    assert run("plan", "-e", "staging").code == 0
    assert not any(swarm.docker.kept.values())
    done = run("up", "-d", "-e", "staging")
    assert done.code == 0, done.err
    assert swarm.asked == [("install", "warehouse")] and swarm.known == {"TOKEN": b"s3cret"}
    assert reached.calls == [("apply", {})]
    assert asyncio.run(swarm.stored()).generation == 1
    assert [name.rpartition("_")[0] for name in swarm.docker.kept["secrets"]] == ["warehouse_TOKEN"]
    assert b"s3cret" not in b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert run("plan", "-e", "staging").out.endswith("No changes.\n")


def test_what_holds_data_may_not_be_looked_into(swarm: Swarm, reached: FakeController, home: Path, run: Run) -> None:
    """Volumes are on the nodes: that one leaves the fleet is said before it does."""
    assert run("up", "-d", "-e", "staging").code == 0
    (home / "shoal.yaml").write_text(TEXT.replace('volumes: ["data:/data"], ', ""))
    done = run("up", "-d", "-e", "staging", "-y")
    assert done.code == 1
    assert "volume data of web: what it holds can't be seen from here" in done.err


def test_without_a_context(swarm: Swarm, run: Run) -> None:
    """Who has none is told how to get one; a fleet that was never there is no error to end."""
    done = run("scale", "web", "2", "-e", "staging")
    assert done.code == 1
    assert "`shoal context export warehouse --name YOU`" in done.err
    assert run("down", "-e", "staging").out == "warehouse: nothing runs here\n"


def test_without_an_environment(swarm: Swarm, run: Run) -> None:
    """Where nothing is found on this machine, the file's environments are named: the fleet may run in one of them."""
    named = "; that is without -e, and the file has environments: staging\n"
    assert run("down").out == f"warehouse: nothing runs here{named}"
    for arguments in (("status",), ("status", "-w")):
        done = run(*arguments)
        assert done.code == 1 and "start the fleet with `shoal up`" in done.err and done.err.endswith(named)
    assert "-e" not in run("down", "-e", "staging").out


def test_down_without_a_controller(swarm: Swarm, run: Run) -> None:
    """What is there is removed by Swarm itself, once the end of the fleet is stored."""

    async def put() -> None:
        fleet = Fleet.model_validate({"fleet": "warehouse", "agents": {"web": {"command": "x", "port": 1}}})
        store = DocumentStore(SwarmKeeper(swarm.docker, "warehouse"))
        await store.write_fleet(fleet, directory="/", by="a", at=0, expected_generation=0)
        await swarm.docker.create_service(
            {"Name": "warehouse_web_1", "Labels": {"shoal.fleet": "warehouse", "shoal.role": "revision"}}
        )

    asyncio.run(put())
    status = run("status", "-e", "staging")
    assert status.code == 0 and "warehouse on swarm, without a controller" in status.out
    assert "Swarm itself replaces what ends" in status.out
    done = run("down", "-e", "staging")
    assert (done.code, done.out) == (0, "warehouse: everything is stopped\n")
    assert "No controller answers; what is there is removed without it" in done.err
    assert asyncio.run(swarm.stored()).fleet is None
    assert ("remove", False) in swarm.asked


def test_what_secrets_held_is_gone_after_down(swarm: Swarm, reached: FakeController, run: Run) -> None:
    """Though the controller had it until its end."""
    assert run("up", "-d", "-e", "staging").code == 0
    (kept,) = [name for name, each in swarm.docker.kept["secrets"].items() if "shoal.digest" in each["Spec"]["Labels"]]
    swarm.docker.in_use.add(kept)
    store = DocumentStore(SwarmKeeper(swarm.docker, "warehouse"))
    asyncio.run(store.write_fleet(None, directory="/", by="down", at=0, expected_generation=1))  # as a controller does
    assert run("down", "-e", "staging").code == 0
    assert kept not in swarm.docker.kept["secrets"]


def test_no_swarm_says_what_to_do(swarm: Swarm, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker's words have it, with what helps."""

    async def refuse(name: str) -> dict[str, Any]:
        reason = "This node is not a swarm manager"
        raise DockerUnavailable(f"{reason} (`docker swarm init` ...)", status=503, reason=reason)

    monkeypatch.setattr(swarm.docker, "service", refuse)
    for command in (("plan",), ("up", "-d"), ("secret", "list")):
        done = run(*command, "-e", "staging")
        assert done.code == 1 and "not a swarm manager" in done.err


def test_an_agent_needs_an_image(swarm: Swarm, home: Path, run: Run) -> None:
    """It is said with its place, before anything is asked of a Swarm."""
    (home / "shoal.yaml").write_text(TEXT.replace("image: sha256:abc\n", ""))
    done = run("validate", "-e", "staging")
    assert done.code == 1
    assert "shoal.yaml:3:" in done.err and "agents.web: found no image" in done.err


def test_where_a_fleet_is(swarm: Swarm, home: Path) -> None:
    """By the file's engine, which an environment may set; by its name alone, where it was reached from here."""
    assert isinstance(Common().place(), LocalPlace)
    assert isinstance(Common(environment="staging").place(), SwarmPlace)
    context = FleetContext("far", "swarm", "lab", ("192.0.2.1:7444",), "none")
    save_context({"SHOAL_HOME": str(home.parent / "state")}, context)
    assert isinstance(Common(fleet="far").place(), SwarmPlace)
    (home / "shoal.yaml").write_text(TEXT + "engine: swarm\ndocker_context: lab\n")
    assert isinstance(Common().place(), SwarmPlace)
