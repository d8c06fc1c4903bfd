"""A worker for the conformance cases: every start and every effect is a line at SINK."""

from __future__ import annotations

import json
import os
import time
import urllib.request

from shoal.sdk import Task, worker


def record(**what: object) -> None:
    line = {**what, "pid": os.getpid(), "replica": os.environ["SHOAL_REPLICA"], "at": time.time()}
    urllib.request.urlopen(os.environ["SINK"], json.dumps(line).encode(), timeout=10).close()


@worker(concurrency=2, retry_delay_s=0.1, retry_delay_max_s=0.3)
def handle(task: Task) -> None:
    job = task.json()
    record(event="start", name=job["name"], attempt=task.attempt)
    time.sleep(job["ms"] / 1000)
    if job["poison"]:
        raise ValueError("this task is poison")
    record(event="done", name=job["name"])


handle.run()
