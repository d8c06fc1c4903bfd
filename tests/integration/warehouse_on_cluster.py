"""The warehouse on a cluster from the very file that runs it on one machine: what is the same on every engine."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from typed import Typed

from examples.warehouse.warehouse_demo.traffic import BATCHES_AN_HOUR, make_batch

EXAMPLE = Path(__file__).parents[2] / "examples" / "warehouse"
BATCHES = 27  # every third names a picture
WITHIN_S = 60.0
EVERY_S = 1.0  # a command takes a processor that the fleet wants too


def batches() -> Iterator[bytes]:
    """As the demo sends them, of hours far enough apart for a forecast of the day's season."""
    for number in range(BATCHES):
        yield make_batch(number * 2 * BATCHES_AN_HOUR)[0].encode()


def ask(url: str, body: bytes | None = None) -> Any:
    """The answer, which has to be one: nothing here is tried twice."""
    method, headers = ("GET", {}) if body is None else ("PUT", {"content-type": "text/csv"})
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=30) as answer:
        assert answer.status == 200
        return json.load(answer)


def works(typed: Typed, words: Sequence[str], gateways: Sequence[str]) -> None:
    """All six kinds do their work, at whichever gateway."""
    first, last = gateways[0], gateways[-1]
    for number, body in enumerate(batches()):
        ask(f"{(first, last)[number % 2]}/ingest/readings/batch-{number}", body)
    deadline = time.monotonic() + WITHIN_S
    while (report := ask(f"{last}/reporting/report"))["pictures"] < BATCHES // 3:
        assert time.monotonic() < deadline, (report, typed("status", *words))
        time.sleep(0.5)
    assert report["units"] > 0 and report["expected_demand"] is None
    assert "succeeded" in typed("run", "forecasting", "--wait", *words)
    assert ask(f"{first}/reporting/report")["expected_demand"] is not None


def stays(typed: Typed, words: Sequence[str]) -> None:
    """To type `up` again changes and restarts nothing."""
    settled(typed, words)
    before = replicas(typed, words)
    assert "No changes" in typed("up", "-d", "-y", *words)
    assert replicas(typed, words) == before


def settled(typed: Typed, words: Sequence[str]) -> None:
    """Until nothing is on its way any more."""
    deadline = time.monotonic() + WITHIN_S
    while not json.loads(typed("status", "-o", "json", *words))["settled"]:
        assert time.monotonic() < deadline, typed("status", *words)
        time.sleep(EVERY_S)


def replicas(typed: Typed, words: Sequence[str]) -> dict[str, int]:
    """How often each of those that always run was started again."""
    found = json.loads(typed("status", "-o", "json", *words))["agents"]
    assert {agent["name"]: agent["state"] for agent in found if agent["state"] not in ("ok", "asleep")} == {}
    return {each["id"]: each["restarts"] for agent in found if agent["min"] for each in agent["replicas"]}
