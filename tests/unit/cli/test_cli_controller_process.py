"""`up` and the controller's process: which one is told, and when the next one is started."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from shoal import __version__
from shoal.api.views import StatusView
from shoal.cli.local import controller_process
from shoal.cli.local.controller_process import StartedController, tell_or_start
from shoal.errors import ControllerUnavailable
from tests.simulation.virtual_time import run_virtually
from tests.unit.cli.fake_controller import STATUS

NEXT_PID = 7


class _Process:
    pid = NEXT_PID

    def poll(self) -> None:
        return None


class _Ending:
    """A controller that has taken its fleet down, holds it for some looks more, and the one that comes after it."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.started = 0

    async def status(self) -> StatusView:
        if not self.looks and not self.started:
            raise ControllerUnavailable("gone")
        return replace(STATUS, version=__version__, controller_pid=NEXT_PID if self.started else 1)

    async def apply(self) -> int:
        if not self.started:
            raise ControllerUnavailable("it ends")
        return 2

    def is_held(self, _: Path) -> bool:
        self.looks = max(0, self.looks - 1)
        return bool(self.looks or self.started)

    def start(self, directory: Path, *_: object) -> StartedController:
        self.started += 1
        return StartedController(cast("subprocess.Popen[bytes]", _Process()), directory / "controller.log", 0)


def test_who_is_just_ending_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """He is told nothing more, and one is started after him; that is said once."""
    ending = _Ending(looks=3)
    monkeypatch.setattr(controller_process, "is_held", ending.is_held)
    monkeypatch.setattr(controller_process, "start_controller", ending.start)
    started = run_virtually(tell_or_start(cast("Any", ending), tmp_path, "f"))
    assert started is not None and started.process.pid == NEXT_PID and ending.started == 1
    assert capsys.readouterr().err.splitlines() == [
        "The controller of f is just ending; another one is started after it ...",
        "Starting the controller of f ...",
    ]
