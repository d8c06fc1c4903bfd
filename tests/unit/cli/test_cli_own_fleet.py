"""What changes a fleet refuses one of the same name that was started from another directory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shoal.cli.local.place import LocalPlace
from shoal.cli.stored_fleet import write_stored
from shoal.spec.model import Fleet
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import FakeController

COMMANDS = (
    ("scale", "ingest", "3"),
    ("run", "forecasting"),
    ("queue", "purge", "tasks", "-y"),
    ("queue", "redrive", "tasks"),
    ("restart", "ingest", "-y"),
    ("rollout", "undo", "-y"),
    ("down",),
    ("secret", "set", "KEY"),
    ("secret", "rm", "KEY"),
)


def started_from(directory: Path, project: Path | str) -> None:
    fleet = Fleet.model_validate({"fleet": "warehouse", "agents": {"ingest": {"command": "x", "port": 1}}})
    asyncio.run(write_stored(LocalPlace(directory, "warehouse"), fleet, str(project), 0))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_fleet_from_elsewhere_is_refused(
    fake: FakeController, directory: Path, run: Run, command: tuple[str, ...]
) -> None:
    """With its directory and the way to mean it all the same; nothing was asked of its controller."""
    started_from(directory, "/elsewhere")
    done = run(*command)
    assert done.code == 1
    assert "was started from /elsewhere" in done.err and "--fleet warehouse" in done.err
    assert fake.calls == []


@pytest.mark.parametrize("command", COMMANDS[:4], ids=" ".join)
def test_its_name_given_is_consent(
    fake: FakeController, directory: Path, home: Path, run: Run, command: tuple[str, ...]
) -> None:
    """As is the directory it was started from."""
    started_from(directory, "/elsewhere")
    assert run(*command, "--fleet", "warehouse").code == 0
    started_again = Fleet.model_validate({"fleet": "warehouse", "agents": {"ingest": {"command": "x", "port": 1}}})
    asyncio.run(write_stored(LocalPlace(directory, "warehouse"), started_again, str(home), 1))
    assert run(*command).code == 0


@pytest.mark.parametrize(
    "command", [("status",), ("down",), ("scale", "a", "1"), ("restart", "a"), ("logs",), ("secret", "list")]
)
def test_a_name_that_never_was(directory: Path, home: Path, run: Run, command: tuple[str, ...]) -> None:
    """The fleets that exist are named."""
    started_from(directory, home)
    done = run(*command, "--fleet", "nope")
    assert done.code == 1
    assert "no fleet" in done.err and "nope" in done.err and "there are: warehouse" in done.err
