"""What the tests of the command line share: a home of their own, and a fake controller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shoal.api.client import socket_path
from shoal.cli.home import fleet_directory
from shoal.cli.main import main
from tests.unit.cli.fake_controller import FakeController, serve


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project to stand in, and a state directory of its own."""
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "state"))
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def directory(home: Path) -> Path:
    """The state directory of the fleet `warehouse`, and a file that names it."""
    (home / "shoal.yaml").write_text("fleet: warehouse\nagents: {}\n")
    return fleet_directory({"SHOAL_HOME": str(home.parent / "state")}, "warehouse")


@pytest.fixture
def fake(directory: Path) -> Iterator[FakeController]:
    """A controller of the fleet `warehouse` that answers."""
    directory.mkdir(parents=True)  # the socket is elsewhere where the path would be too long for one
    controller = FakeController()
    with serve(controller, socket_path(directory)):
        yield controller


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line within this process."""

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call
