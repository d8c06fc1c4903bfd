"""A job for the conformance cases: one line at SINK an attempt; fails as often as it is told."""

from __future__ import annotations

import os
import sys
import time
import urllib.request

line = f"{os.environ.get('SHOAL_REPLICA', '?')} {time.time()}"
with urllib.request.urlopen(os.environ["SINK"], line.encode(), timeout=10) as answer:
    runs = int(answer.read())
print(f"run {runs}", flush=True)
time.sleep(float(os.environ.get("LASTS_S", "0")))
sys.exit(5 if runs <= int(os.environ.get("FAILS", "0")) else 0)
