"""`shoal doctor` for a fleet on a Swarm: what it finds of Docker, the managers, the nodes, ports and images."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shoal.cli.swarm.health_checks import check_managers, check_nodes
from shoal.cli.swarm.place import SwarmPlace
from shoal.engines.swarm.docker import Docker, DockerError
from shoal.errors import EngineUnavailable
from tests.fake_docker import FakeDocker
from tests.unit.cli.conftest import Run

TEXT = """fleet: shop
engine: swarm
swarm: {image: "r.lab/shoal:1"}
agents:
  web: {image: "acme/web:1", command: serve, port: 80}
"""


def node(name: str, state: str = "ready", manager: str | None = None, availability: str = "active") -> dict[str, Any]:
    """A node; `manager` is its reachability as one."""
    status = {"ManagerStatus": {"Reachability": manager, "Addr": f"{name}:2377"}} if manager is not None else {}
    about = {"Description": {"Hostname": name}, "Status": {"State": state}, "Spec": {"Availability": availability}}
    return {"ID": name, **about, **status}


class Daemon(FakeDocker):
    """A daemon that tells of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.membership: dict[str, Any] = {"LocalNodeState": "active", "ControlAvailable": True}
        self.images = {"r.lab/shoal:1", "acme/web:1"}
        self.published: dict[str, int] = {}

    async def api_version(self) -> str:
        return "1.47"

    async def info(self) -> dict[str, Any]:
        return {"Name": "n1", "ServerVersion": "28.5.2", "Swarm": self.membership}

    async def nodes(self) -> list[dict[str, Any]]:
        return [node("n1", manager="reachable"), node("n2")]

    async def services(self, *_: object, **__: object) -> list[dict[str, Any]]:
        return [
            {"Spec": {"Name": name, "Labels": {}}, "Endpoint": {"Ports": [{"PublishedPort": port}]}}
            for name, port in self.published.items()
        ]

    async def image(self, name: str) -> dict[str, Any]:
        if name not in self.images:
            raise DockerError("No such image", status=404, reason="No such image")
        return {}


@pytest.fixture
def daemon(home: Path, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """It, and a file of a fleet there."""
    made = Daemon()

    @asynccontextmanager
    async def docker(_: SwarmPlace) -> AsyncGenerator[Docker]:
        yield made

    monkeypatch.setattr(SwarmPlace, "docker", docker)
    (home / "shoal.yaml").write_text(TEXT)
    return made


def found(run: Run, code: int = 0) -> dict[str, tuple[str, str]]:
    """By check its result, and what was found with what to do."""
    done = run("doctor", "-o", "json")
    assert done.code == code, (done.out, done.err)
    return {each["check"]: (each["result"], f"{each['found']}; {each['remedy']}") for each in json.loads(done.out)}


def test_a_swarm_that_is_well(daemon: Daemon, run: Run) -> None:
    """One manager is told of; nothing else is to be done before the first `up`."""
    checks = found(run)
    results = {name: result for name, (result, _) in checks.items()}
    assert results == {
        "python": "ok", "docker": "ok", "manager": "ok", "managers": "note", "nodes": "ok", "port": "ok",
        "admin_port": "ok", "images": "ok", "controller": "note",
    }  # fmt: skip
    assert "28.5.2 at fake://swarm, Engine API 1.47" in checks["docker"][1]
    assert "`docker node promote NODE`" in checks["managers"][1]


def test_what_would_fail(daemon: Daemon, home: Path, run: Run) -> None:
    """A port of somebody else's service is a failure; an image that is not here may be pulled."""
    daemon.published = {"other": 8080}
    daemon.images = set()
    checks = found(run, code=1)
    assert checks["port"] == (
        "failure",
        "the service other has 8080; set swarm.port to another one, or remove that service",
    )
    assert checks["admin_port"][0] == "ok"
    result, words = checks["images"]
    assert result == "note" and "r.lab/shoal:1, acme/web:1" in words and "from docker.io, r.lab without" in words
    (home / "shoal.yaml").write_text(TEXT.replace("r.lab/shoal:1", "sha256:ab").replace("acme/web:1", "sha256:cd"))
    assert "nobody can pull by an id" in found(run, code=1)["images"][1]


@pytest.mark.parametrize(
    ("swarm", "said"),
    [
        ({"LocalNodeState": "inactive"}, "this node is in no Swarm; `docker swarm init`"),
        (
            {"LocalNodeState": "active", "RemoteManagers": [{"Addr": "10.0.0.1:2377"}]},
            "this node is a worker of its Swarm; name one of its managers by DOCKER_HOST or a Docker context: 10.0.0.1",
        ),
    ],
)
def test_who_can_manage_nothing(daemon: Daemon, run: Run, swarm: dict[str, Any], said: str) -> None:
    """Then nothing more can be asked of it."""
    daemon.membership = swarm
    checks = found(run, code=1)
    assert checks["manager"][0] == "failure" and said in checks["manager"][1]
    assert "nodes" not in checks


def test_no_docker(daemon: Daemon, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so in its own words."""

    async def refuse() -> str:
        raise EngineUnavailable("Docker at x can't be reached")

    monkeypatch.setattr(daemon, "api_version", refuse)
    assert found(run, code=1)["docker"] == ("failure", "Docker at x can't be reached; ")


def test_managers_and_nodes() -> None:
    """How many more may be lost, and who is down or takes nothing."""
    three = [node(f"n{number}", manager="reachable") for number in (1, 2, 3)]
    (finding,) = check_managers(three)
    assert (finding.result, finding.found) == ("ok", "3, of which 1 may be lost")
    (finding,) = check_managers([*three[:2], node("n3", manager="unreachable")])
    assert finding.result == "warning" and "1 of 3 can't be reached: n3:2377" in finding.found
    assert finding.remedy == "start them again; 0 more may be lost"
    assert check_nodes([*three, node("n4", availability="drain")]).found == "4 ready, n4 takes no tasks"
    assert check_nodes([*three, node("n4", "down")]).result == "warning"
