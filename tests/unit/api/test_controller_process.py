"""The controller's process: what it needs of the machine, and what it leaves in its log."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from shoal.api import __main__ as process


def test_an_error_that_nobody_expects_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With where it came from; and the process may open as many files as the machine allows."""

    async def run_controller(*_: object) -> None:
        raise LookupError("no such thing")

    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(process, "run_controller", run_controller)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    monkeypatch.setattr(sys, "argv", ["shoal.api", "--directory", str(tmp_path), "--fleet", "f"])
    assert process.main() == 1
    error = capsys.readouterr().err
    assert "LookupError: no such thing" in error
    assert "in run_controller" in error
    assert limits == [(4096, 4096)]
