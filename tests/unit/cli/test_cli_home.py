"""A state directory that can't be one is told in words, by every command alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.cli.home import reachable_directory
from shoal.errors import ShoalError
from tests.unit.cli.conftest import Run

COMMANDS = (
    ("status",), ("status", "-w"), ("logs",), ("events",), ("explain", "a"), ("plan",), ("up", "-d"), ("down",),
    ("scale", "a", "1"), ("run", "a"), ("restart", "a"), ("rollout", "history"), ("queue", "ls"), ("secret", "list"),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_file_in_its_place(home: Path, run: Run, command: tuple[str, ...]) -> None:
    """It is named, with what is expected and the variable that names another place."""
    (home / "shoal.yaml").write_text("fleet: f\nagents: {a: {command: x, port: 1}}\n")
    (home.parent / "state").write_text("")
    done = run(*command)
    assert done.code == 1
    assert f"error: {home.parent / 'state' / 'f'} can't be looked at: Not a directory; a fleet keeps" in done.err
    assert "SHOAL_HOME" in done.err


def test_what_is_no_directory_or_not_yours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that is not there yet is good; one that can't be used says why."""
    environ = {"SHOAL_HOME": str(tmp_path)}
    assert reachable_directory(environ, "f") == tmp_path / "f"
    (tmp_path / "f").touch()
    with pytest.raises(ShoalError, match="f is no directory; a fleet keeps"):
        reachable_directory(environ, "f")
    (tmp_path / "f").unlink()
    (tmp_path / "f").mkdir()
    assert reachable_directory(environ, "f") == tmp_path / "f"
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ShoalError, match="is not yours to read and write: it belongs to user"):
        reachable_directory(environ, "f")


def test_a_file_of_another_fleet_than_the_one_named(home: Path, run: Run) -> None:
    """`--fleet` is not passed over by what starts from a file."""
    (home / "shoal.yaml").write_text("fleet: f\nagents: {a: {command: x, port: 1}}\n")
    assert run("--fleet", "f", "validate").code == 0
    for command in (("validate",), ("plan",), ("up", "-d")):
        done = run("--fleet", "other", *command)
        assert done.code == 1
        assert "error: --fleet names other, and shoal.yaml is the file of f" in done.err
    assert not (home.parent / "state").exists()
