"""Where secrets come from, which value counts, and `shoal secret` without a fleet."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from shoal.cli import secret_sources
from shoal.cli.secret_sources import LARGEST_BYTES, Sources, Unusable, refuse_content
from shoal.control.secret_contents import SecretContents
from shoal.spec import load
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_controller import FakeController

HEAD = "fleet: warehouse\nagents:\n  a: {command: a, port: 80, secrets: [TOKEN]}\n"


def _content(directory: Path) -> set[bytes]:
    return {path.read_bytes() for path in (directory / "secrets").iterdir()}


def test_sources_are_read_as_documented(home: Path) -> None:
    """A file byte by byte, a command without its last newline, never by a shell; each other thing is told."""
    (home / "f").write_bytes(b"\0line\n\n")
    sources = {
        "FILE": "{file: f}",
        "COMMAND": "{command: \"printf '$HOME\\\\n\\\\n'\"}",
        "VARIABLE": "{environment: OTHER}",
        "GONE": "{file: none}",
        "UNSET": "{environment: NOBODY}",
        "FAILS": "{command: 'false'}",
        "NOWHERE": "{command: no-such-program}",
    }
    lines = "".join(f"  {name}: {source}\n" for name, source in sources.items())
    used = ", ".join([*sources, "PLAIN"])
    (home / "shoal.yaml").write_text(
        f"fleet: f\nsecrets:\n{lines}agents:\n  a: {{command: a, port: 1, secrets: [{used}]}}\n"
    )
    (home / ".env").write_text("PLAIN=plain\n")
    read = Sources(load(["shoal.yaml"]), home, {"OTHER": "other"}).read
    assert (read("FILE"), read("COMMAND")) == (b"\0line\n\n", b"$HOME\n")
    assert (read("VARIABLE"), read("PLAIN"), read("UNKNOWN")) == (b"other", b"plain", None)
    whys = [found.why for name in ("GONE", "UNSET", "FAILS", "NOWHERE") if isinstance(found := read(name), Unusable)]
    assert [why.rpartition("/")[2] for why in whys] == [
        "none can't be read: no such file or directory",
        "the variable NOBODY is not set",
        "its command false failed (exit code 1); what it says to that stands above",
        "its command no-such-program can't be started: no such file or directory",
    ]


@pytest.mark.parametrize("command", ["sleep 600", "sh -c 'exec >&-; exec sleep 600'"])
def test_a_command_that_hangs_is_killed_and_told(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """After a minute, whether or not it still holds its output; the error says which, and nothing is stored."""
    monkeypatch.setattr(secret_sources, "COMMAND_TIMEOUT_S", 0.2)
    (home / "shoal.yaml").write_text(f'{HEAD}secrets: {{TOKEN: {{command: "{command}"}}}}\n')
    done = run("plan")
    assert done.code == 1
    assert f"its command {command.split(maxsplit=1)[0]} did not end within 200ms, and was killed" in done.err
    assert "run it by itself to see what it waits for" in done.err


def test_a_command_that_writes_without_end_is_refused(home: Path, run: Run) -> None:
    """Once it has written more than a secret may have."""
    (home / "shoal.yaml").write_text(f"{HEAD}secrets: {{TOKEN: {{command: 'cat /dev/zero'}}}}\n")
    done = run("plan")
    assert done.code == 1 and "expected at most 512,000" in done.err


@pytest.mark.parametrize(
    ("content", "as_variable", "why"),
    [
        (b"", False, "it is empty"),
        (b"x" * (LARGEST_BYTES + 1), False, "it has 512,001 bytes"),
        (b"\xff", True, "it is not UTF-8"),
        (b"a\0b", True, "it has a NUL"),
        (b"x" * 131072, True, "too large for a variable"),
    ],
)
def test_what_can_be_no_secret(content: bytes, as_variable: bool, why: str) -> None:
    """Said before anything is stored."""
    found = refuse_content(content, as_variable=as_variable)
    assert found is not None and why in found.why


@pytest.mark.parametrize("content", [b"\xff\0", b"x" * LARGEST_BYTES, b" ", b"\n"])
def test_what_can_be_one_as_a_file(content: bytes) -> None:
    """Any bytes."""
    assert refuse_content(content, as_variable=False) is None


def test_a_value_by_hand_stands_until_its_source_changes(
    fake: FakeController, home: Path, directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the old variable nor a missing one takes it back; a new one does. Values are shown nowhere."""
    (home / "shoal.yaml").write_text(HEAD)
    contents = SecretContents(directory)
    monkeypatch.setenv("TOKEN", "from-source-1")
    assert run("up", "-d", "--wait-timeout", "1ms").code == 1  # stored; the fake controller carries nothing out
    said = ""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"by-hand")))
    said += (done := run("secret", "set", "TOKEN", "-d")).out + done.err
    assert "secrets.TOKEN: another content" in done.err
    assert contents.has(contents.digest(b"by-hand"))
    said += (done := run("plan", "--detailed-exitcode")).out
    assert done.code == 0 and "keeps what `shoal secret set` gave it" in done.out
    monkeypatch.delenv("TOKEN")
    assert run("up", "-d", "--wait-timeout", "1ms").err.count("No changes.") == 1
    monkeypatch.setenv("TOKEN", "from-source-1")
    assert run("plan", "--detailed-exitcode").code == 0
    monkeypatch.setenv("TOKEN", "from-source-2")
    said += (done := run("plan", "--detailed-exitcode")).out
    assert done.code == 2
    said += (done := run("secret", "list", "-o", "json")).out
    (row,) = json.loads(done.out)
    assert (row["name"], row["agents"], row["source"]) == ("TOKEN", ["a"], "secret set")
    assert "by-hand" not in said and "from-source" not in said


def test_a_secret_without_a_fleet(home: Path, directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be given ahead, and taken away again; one in use can't."""
    (home / "shoal.yaml").write_text(HEAD)
    (home / "value").write_bytes(b"ahead\n")
    done = run("secret", "set", "TOKEN", "--from-file", "value")
    assert (done.code, done.out) == (0, "TOKEN: stored; no agent has it yet\n")
    assert "ends with a newline" in done.err
    assert run("plan").code == 0
    assert "it has this value already" in run("secret", "set", "TOKEN", "--from-file", "value").out
    assert _content(directory) == {b"ahead\n"}
    assert run("secret", "rm", "TOKEN").code == 0
    assert not (directory / "secrets").exists()
    assert run("secret", "rm", "TOKEN").code == 1
    (home / "value").write_bytes(b"")
    assert "it is empty" in run("secret", "set", "TOKEN", "--from-file", "value").err
    assert run("secret", "set", "a b", "--from-file", "shoal.yaml").code == 1
