"""A job for the conformance cases: one line at SINK an attempt; calls, fails, and ends at SIGTERM, as it is told."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.request

if "CALLS" in os.environ:  # at once, with the first thing that it does
    urllib.request.urlopen(os.environ[f"SHOAL_URL_{os.environ['CALLS']}"] + "/", timeout=20).close()
line = f"{os.environ.get('SHOAL_REPLICA', '?')} {time.time()}"
with urllib.request.urlopen(os.environ["SINK"], line.encode(), timeout=10) as answer:
    runs = int(answer.read())
print(f"run {runs}", flush=True)
if "AT_SIGTERM" in os.environ:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(os.environ["AT_SIGTERM"])))
time.sleep(float(os.environ.get("LASTS_S", "0")))
sys.exit(5 if runs <= int(os.environ.get("FAILS", "0")) else 0)
