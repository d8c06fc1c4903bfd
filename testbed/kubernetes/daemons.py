"""Programs of the bed that outlive the command that started them: found again, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.commands import BedError, launch, start_of, until

_END_S = 5.0


@dataclass(frozen=True)
class Daemon:
    """One, by its name in a directory: NAME.log, and NAME.run with its pid and when that started."""

    directory: Path
    name: str

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """On the host; None where it does not run."""
        try:
            pid, started = (self.directory / f"{self.name}.run").read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if start_of(int(pid)) == started else None

    def start(self, command: Sequence[str | Path], groups: Sequence[Path] = (), **variables: str) -> None:
        """Starts it; one that runs is left alone."""
        if self.pid is not None:
            return
        pid_file = self.directory / f"{self.name}.pid"
        launch(command, pid_file, self.log, groups=groups, **variables)
        pid = int(pid_file.read_text())
        (self.directory / f"{self.name}.run").write_text(f"{pid} {start_of(pid)}")

    def stop(self, *numbers: signal.Signals) -> None:
        """Ends it, and waits for that. Raises BedError. Without `numbers` by SIGKILL where it takes its time after
        SIGTERM (an API server waits for who watches)."""
        for number in numbers or (signal.SIGTERM, signal.SIGKILL):
            pid = self.pid
            if pid is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            with contextlib.suppress(BedError):
                until(lambda: self.pid is None, f"{self.name} to end", timeout_s=_END_S)
        if self.pid is not None:
            raise BedError(f"{self.name} (pid {self.pid}) does not end")
