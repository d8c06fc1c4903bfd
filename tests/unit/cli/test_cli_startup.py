"""The command line starts quickly, and fails in a way that a person can act on."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from shoal import __version__
from shoal.cli import main as main_module
from shoal.cli.main import ENTRIES, cli, main
from shoal.errors import NotFound

HEAVY = ("pydantic", "grpc", "aiohttp", "yaml", "rich", "asyncio", "sqlite3", "psutil")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["status", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """What a command needs is imported when it runs."""
    allowed = {"asyncio"} if "status" in arguments else set[str]()
    code = (
        "import sys; from shoal.cli.main import main; main(sys.argv[1:]);"
        f"print([m for m in {HEAVY!r} if m in sys.modules and m not in {allowed!r}], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_the_table_is_what_the_commands_say() -> None:
    """The group's help is written down twice, for speed: both agree."""
    with click.Context(cli) as ctx:
        for name, entry in ENTRIES.items():
            command = cli.get_command(ctx, name)
            assert command is not None
            assert command.name == name
            assert command.get_short_help_str(limit=200) == entry.help


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` names the version and nothing else."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"shoal {__version__}\n"


def test_module_runs() -> None:
    """`python -m shoal.cli` is the same command."""
    done = subprocess.run([sys.executable, "-m", "shoal.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("shoal ")


def test_a_mistyped_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage exits 2 and says what was meant."""
    assert main(["stauts"]) == 2
    assert "Did you mean 'status'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (NotFound("no agent 'x'; it has a, b"), 1, "error: no agent 'x'; it has a, b\n"),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [NotFound("inner")])]), 1, "error: inner\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (BaseExceptionGroup("tasks", [KeyboardInterrupt()]), 130, ""),
        (click.exceptions.Abort(), 130, ""),
    ],
)
def test_what_a_person_can_act_on_has_no_traceback(
    raised: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Errors of the tree are told as they stand; Ctrl-C is quiet."""
    monkeypatch.setattr(main_module, "cli", _Raises(raised))
    assert main([]) == code
    assert capsys.readouterr().err.endswith(told)


def test_a_fault_says_how_to_report_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody expected comes with its traceback and exits 70."""
    monkeypatch.setattr(main_module, "cli", _Raises(ValueError("odd")))
    assert main([]) == 70
    told = capsys.readouterr().err
    assert "ValueError: odd" in told
    assert "Please report" in told


class _Raises(click.Command):
    def __init__(self, error: BaseException) -> None:
        super().__init__("shoal")
        self.error = error

    def invoke(self, ctx: click.Context) -> None:
        raise self.error


def test_a_closed_pipe_is_quiet() -> None:
    """`shoal ... | head` neither complains nor prints a traceback."""
    command = f"{sys.executable} -m shoal.cli schema | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout[:1], done.stderr) == ("{", "")
