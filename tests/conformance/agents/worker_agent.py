"""A worker for the conformance cases: every start and every effect is a line in a file of the test's."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from shoal.sdk import Task, worker

SINK = Path(os.environ["SINK"])


def record(**what: object) -> None:
    with SINK.open("a") as file:
        file.write(json.dumps({**what, "pid": os.getpid(), "at": time.time()}) + "\n")


@worker(concurrency=2, retry_delay_s=0.1, retry_delay_max_s=0.3)
def handle(task: Task) -> None:
    job = task.json()
    record(event="start", name=job["name"], attempt=task.attempt)
    time.sleep(job["ms"] / 1000)
    if job["poison"]:
        raise ValueError("this task is poison")
    record(event="done", name=job["name"])


handle.run()
