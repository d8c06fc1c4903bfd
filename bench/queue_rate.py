"""What the embedded broker carries as Shoal runs it: every publish on the disk before it is confirmed."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import defaultdict
from typing import Any

from bench.live_fleet import HERE, LiveFleet, running
from bench.row import Row

_CONCURRENCY = 16


def run(quick: bool) -> list[Row]:
    """Publishes with no worker, then a worker on what was published."""
    program = [sys.executable, str(HERE / "queue_agents.py")]
    agents = {
        "send": {
            "command": [*program, "publish"],
            "schedule": {"cron": "0 0 1 1 *", "time_zone": "UTC"},
            "publishes": ["bench"],
            "environment": {"SECONDS_EACH": "1" if quick else "2"},
        },
        "work": {
            "command": [*program, "work"],
            "queue": "bench",
            "environment": {"CONCURRENCY": str(_CONCURRENCY)},
            "scale": {"min": 0, "max": 1, "target": {"queue_depth": 1_000_000}},
        },
    }
    published: dict[int, list[float]] = defaultdict(list)
    worked: list[float] = []
    with running("bench-queue", agents, queues={"bench": {"broker": "main"}}) as fleet:
        for _ in range(2 if quick else 5):
            fleet.pin("work", 0)
            fleet.wait_for("work", lambda agent: not agent.replicas)
            since = time.time()
            fleet.shoal("run", "send", "--wait", timeout_s=120)
            for line in _lines(fleet, "send", since):
                published[int(line["window"])].append(float(line["per_s"]))
            since = time.time()
            fleet.pin("work", 1)
            _wait_worked(fleet)
            worked += _rates([(line["done"], line["at"]) for line in _lines(fleet, "work", since)])
    rows = [
        Row("queue", f"confirmed publishes, {window} under way at once", "/s", tuple(rates))
        for window, rates in sorted(published.items())
    ]
    return [*rows, Row("queue", f"tasks of one worker, {_CONCURRENCY} at once", "/s", tuple(worked))]


def _rates(done: list[tuple[int, float]]) -> list[float]:
    """Tasks a second from the first line to the last."""
    if len(done) < 2:
        return []
    (first, began), (last, ended) = min(done), max(done)
    return [(last - first) / (ended - began)] if ended > began else []


def _lines(fleet: LiveFleet, agent: str, since: float) -> list[dict[str, Any]]:
    """What the agent printed since then, an object a line."""
    out = fleet.shoal("logs", agent, "-o", "json")
    texts = (json.loads(line)["text"] for line in out.splitlines())
    found = [json.loads(text) for text in texts if text.startswith("{")]
    return [line for line in found if line["at"] >= since]


def _wait_worked(fleet: LiveFleet, within_s: float = 60.0) -> None:
    """Until the queue is empty. Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    for _ in itertools.count():
        queue = json.loads(fleet.shoal("queue", "ls", "-o", "json"))[0]
        if queue["waiting"] == 0 and queue["in_progress"] == 0:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"tasks are left after {within_s:g}s: {queue}")
        time.sleep(0.2)
