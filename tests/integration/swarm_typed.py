"""Commands for a fleet on the test Swarm as people type them, in a directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.swarm_bed import Swarm

WITHIN_S = 180


class Typed:
    """`files` are the specs' in the order in which they are laid over each other."""

    def __init__(self, home: Path, swarm: Swarm, *files: str) -> None:
        self.home = home
        self.files = [word for file in files for word in ("-f", file)]
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "HOME")}
        self.environ = {**kept, "SHOAL_HOME": str(home / "state"), "DOCKER_HOST": swarm.endpoint.host}

    def __call__(self, *words: str, code: int = 0, **variables: str) -> str:
        """What it said on either of its streams; it has to end with `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "shoal.cli", *self.files, *words], cwd=self.home,
            env={**self.environ, **variables}, capture_output=True, text=True, timeout=WITHIN_S, check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr
