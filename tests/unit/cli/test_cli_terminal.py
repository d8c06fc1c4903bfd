"""What only a terminal shows: views that are drawn in place, colours, questions, and Ctrl-C."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest

from shoal.control.secret_contents import SecretContents
from tests.unit.cli.fake_controller import IMAGES, INGEST, STATUS, FakeController

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PATIENCE_S = 30
TEXT = "fleet: warehouse\nagents:\n  ingest: {command: ingest, port: 8000}\n"


class Terminal:
    """A command on a terminal of 80 columns."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
        self.child: pexpect.spawn[str] = pexpect.spawn(
            sys.executable,
            ["-m", "shoal.cli", *arguments],
            env={**inherited, "TERM": "xterm-256color", **environment},
            dimensions=(30, 80),
            encoding="utf-8",
            timeout=PATIENCE_S,
        )

    def end(self) -> tuple[int, str]:
        """Waits for the end; gives the exit code and the rest of what was shown."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus if self.child.exitstatus is not None else -1, self.child.before or ""


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """Ends what a failed test left."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.child.close(force=True)


def test_status_has_colours_and_words(fake: FakeController) -> None:
    """On a terminal both; with --no-color or NO_COLOR the words alone."""
    code, shown = Terminal("status").end()
    assert code == 0
    assert "\x1b[33mdegraded" in shown
    assert max(len(line) for line in _ANSI.sub("", shown).splitlines()) <= 80
    for terminal in (Terminal("status", "--no-color"), Terminal("status", NO_COLOR="1")):
        code, shown = terminal.end()
        assert code == 0
        assert "\x1b" not in shown
        assert "degraded" in shown


def test_a_live_status_ends_quietly_with_ctrl_c(fake: FakeController, terminals: list[Terminal]) -> None:
    """It is drawn in place, and Ctrl-C gives 130 and no traceback."""
    fake.stays = True
    fake.watched = [STATUS, replace(STATUS, agents=(replace(INGEST, ready=1, starting=1),))]
    terminal = Terminal("status", "-w")
    terminals.append(terminal)
    terminal.child.expect("image-processing")
    terminal.child.expect(r"\x1b\[\d*A|\x1b\[2K")  # the cursor goes up, or a line is cleared
    terminal.child.expect("ingest")
    terminal.child.sendintr()
    code, shown = terminal.end()
    assert code == 130
    assert "Traceback" not in shown


def test_following_logs_ends_quietly_with_ctrl_c(fake: FakeController, terminals: list[Terminal]) -> None:
    """So do streams of lines."""
    fake.stays = True
    terminal = Terminal("logs", "-f")
    terminals.append(terminal)
    terminal.child.expect("KeyError")
    terminal.child.sendintr()
    code, shown = terminal.end()
    assert code == 130
    assert "Traceback" not in shown


def test_up_beside_another_controller_only_looks(
    fake: FakeController, home: Path, directory: Path, terminals: list[Terminal]
) -> None:
    """Its Ctrl-C ends the view and leaves the fleet; events stand above the table."""
    (home / "shoal.yaml").write_text(TEXT)
    fake.stays = True
    fake.watched = [replace(STATUS, generation=1, observed_generation=1)]
    terminal = Terminal("up")
    terminals.append(terminal)
    terminal.child.expect("Ctrl-C ends this view")
    terminal.child.sendintr()
    terminal.child.expect("The fleet goes on")
    assert terminal.end()[0] == 130
    assert [verb for verb, _ in fake.calls if verb == "down"] == []


def test_up_in_the_background_leaves_with_ctrl_c(
    fake: FakeController, home: Path, directory: Path, terminals: list[Terminal]
) -> None:
    """What was stored goes on, and it says so."""
    (home / "shoal.yaml").write_text(TEXT)
    fake.stays = True
    fake.watched = [
        replace(
            STATUS, generation=1, observed_generation=1, settled=False, agents=(replace(IMAGES, state="progressing"),)
        )
    ]
    terminal = Terminal("up", "-d")
    terminals.append(terminal)
    terminal.child.expect("progressing")
    terminal.child.sendintr()
    terminal.child.expect("It goes on in the background")
    assert terminal.end()[0] == 130


def test_questions_can_be_answered_no(
    fake: FakeController, home: Path, directory: Path, terminals: list[Terminal]
) -> None:
    """Before volumes or waiting tasks are thrown away, and before agents are removed."""
    for arguments, question in ((["queue", "purge", "q"], "Throw away"), (["down", "--volumes"], "Delete the volumes")):
        terminal = Terminal(*arguments)
        terminals.append(terminal)
        terminal.child.expect(question)
        terminal.child.sendline("n")
        terminal.child.expect("nothing was done, as the answer was no")
        assert terminal.end()[0] == 1
    assert fake.calls == []


def test_a_secret_is_asked_for_without_being_shown(directory: Path, terminals: list[Terminal]) -> None:
    """Twice, so that a slip is noticed; what is typed appears nowhere."""
    terminal = Terminal("secret", "set", "TOKEN")
    terminals.append(terminal)
    shown = terminal.child.logfile_read = io.StringIO()
    typed = (("Value of", "never-seen"), ("Repeat", "never-seem"), ("Value of", "never-seen"), ("Repeat", "never-seen"))
    for question, answer in typed:
        terminal.child.expect(question)
        assert terminal.child.waitnoecho(PATIENCE_S)
        terminal.child.sendline(answer)
    code, _ = terminal.end()
    assert code == 0
    assert "do not match" in shown.getvalue() and "stored" in shown.getvalue()
    assert "never" not in shown.getvalue()
    contents = SecretContents(directory)
    assert contents.has(contents.digest(b"never-seen"))
