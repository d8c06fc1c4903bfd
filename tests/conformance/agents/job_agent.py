"""A job for the conformance cases: one line a run; fails as often as it is told."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

SINK = Path(os.environ["SINK"])
with SINK.open("a") as file:
    file.write(f"{os.environ.get('SHOAL_REPLICA', '?')} {time.time()}\n")
runs = len(SINK.read_text().splitlines())
print(f"run {runs}", flush=True)
time.sleep(float(os.environ.get("LASTS_S", "0")))
sys.exit(5 if runs <= int(os.environ.get("FAILS", "0")) else 0)
