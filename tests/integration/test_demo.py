"""The demo as `make demo` runs it, only shorter: it succeeds, it finds what is broken, and it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
DEMO = [sys.executable, str(REPOSITORY / "examples" / "warehouse" / "demo.py"), "--seconds", "15", "--peak-rps", "25"]
TIMEOUT_S = 180.0

pytestmark = pytest.mark.slow


def demo(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *options],
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left_behind(directory: Path) -> list[str]:
    """Processes that were told this directory, and what still lies in it."""
    found = [str(path) for path in directory.glob("shoal-demo-*")]
    for process in psutil.process_iter():
        try:
            if str(directory) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, as Unix sockets lie in it; by itself, so that everything that names it is ours."""
    with tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp") as name:
        yield Path(name)


def test_on_a_terminal(directory: Path) -> None:
    """Nothing asks a person, the table is drawn, and all goes well."""
    environment: Any = {**os.environ, "TMPDIR": str(directory), "TERM": "xterm"}  # on `dumb` nothing is drawn
    terminal: Any = pexpect.spawn(
        DEMO[0], DEMO[1:], env=environment, dimensions=(40, 120), timeout=TIMEOUT_S, encoding="utf8"
    )
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0, terminal.before
    for shown in ("image-processing", "target 2 a replica", "all requests answered, all tasks done once"):
        assert shown in terminal.before
    assert left_behind(directory) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--inject", "failed-request"), "FAILED: 1 requests failed"),
        (("--inject", "lost-task"), "FAILED: 1 tasks lost"),
    ],
)
def test_what_is_broken_is_found(directory: Path, options: tuple[str, ...], said: str) -> None:
    """Status 1, with the reason, when one request failed or one task was lost."""
    process = demo(directory, *options)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, said in output) == (1, True), output
    assert re.search(r"processes left: +0", output), output
    assert left_behind(directory) == []


def test_ctrl_c_leaves_nothing_behind(directory: Path) -> None:
    """Interrupted in the middle of the load, and once more while it takes the fleet down: all is gone."""
    process = demo(directory)
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(r"[1-9]\d* answered", line):
            break
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, output
    assert left_behind(directory) == []
