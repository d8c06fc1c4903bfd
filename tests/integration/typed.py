"""Commands for a fleet on a test cluster as people type them, in a directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

WITHIN_S = 180


class Typed:
    """`environ` is how a command finds the cluster; `files` are the specs' in the order in which they are laid over
    each other."""

    def __init__(self, home: Path, environ: Mapping[str, str], *files: str) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "HOME")}
        self.environ = {**kept, "SHOAL_HOME": str(home / "state"), **environ}
        self._command = [sys.executable, "-m", "shoal.cli", *(word for file in files for word in ("-f", file))]

    def __call__(self, *words: str, code: int = 0, **variables: str) -> str:
        """What it said on either of its streams; it has to end with `code`."""
        done = subprocess.run(
            [*self._command, *words], cwd=self.home, env={**self.environ, **variables}, capture_output=True, text=True,
            timeout=WITHIN_S, check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def start(self, *words: str, output: Path) -> subprocess.Popen[bytes]:
        """One that goes on, whoever starts it ends it; what it says goes to a file."""
        with output.open("wb") as file:
            return subprocess.Popen(
                [*self._command, *words], cwd=self.home, env=self.environ, stdout=file, stderr=subprocess.DEVNULL
            )
