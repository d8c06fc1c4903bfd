"""`shoal logs` while no controller answers: the files are there all the same."""

from __future__ import annotations

from pathlib import Path

from shoal.api.views import LogView
from shoal.cli.logs import render_log
from shoal.control.secret_contents import SecretContents
from tests.unit.cli.conftest import Run


def test_logs_are_read_from_disk_while_the_controller_is_away(directory: Path, run: Run) -> None:
    """It says so, and refuses what only a controller can do."""
    for stream, text in (("stdout", "one\ntwo\n"), ("stderr", "bad\n")):
        path = directory / "agents" / "web" / "logs" / "web-1" / f"{stream}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = run("logs", "web")
    assert done.code == 0
    assert sorted(done.out.splitlines()) == ["web-1 ! bad", "web-1 | one", "web-1 | two"]
    assert "no controller answers" in done.err
    assert run("logs", "nope").code == 1
    assert run("logs", "web", "-f").code == 1


def test_what_lies_on_disk_is_masked_too(directory: Path, run: Run) -> None:
    """The values that secrets have, and those that they had and could be gone back to."""
    for value in (b"current-value", b"value-before"):
        SecretContents(directory).put(value)
    path = directory / "agents" / "web" / "logs" / "web-1" / "stdout.log"
    path.parent.mkdir(parents=True)
    path.write_text("with current-value\nhad value-before\n")
    assert run("logs", "web").out == "web-1 | with ***\nweb-1 | had ***\n"
    assert "value" not in run("logs", "web", "-o", "json").out


def test_nul_bytes_are_shown_once() -> None:
    """A run of them may be millions long, and no terminal or grep takes them well."""
    assert render_log(LogView("web-1", "web", "a" + "\0" * 1000 + "b")).endswith(" a\\0b")
