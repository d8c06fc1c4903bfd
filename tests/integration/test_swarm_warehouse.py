"""The warehouse on a real Swarm from the very file that runs it on one machine, and a second `up` of it."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarm_typed import Typed

from examples.warehouse.warehouse_demo.traffic import BATCHES_AN_HOUR, make_batch
from tests.swarm_bed import Swarm

EXAMPLE = Path(__file__).parents[2] / "examples" / "warehouse"
PORT, ADMIN_PORT = 18086, 17450
BATCHES = 27  # every third names a picture
WITHIN_S = 60.0


def batches() -> Iterator[bytes]:
    """As the demo sends them, of hours far enough apart for a forecast of the day's season."""
    for number in range(BATCHES):
        yield make_batch(number * 2 * BATCHES_AN_HOUR)[0].encode()


def ask(url: str, body: bytes | None = None) -> Any:
    method, headers = ("GET", {}) if body is None else ("PUT", {"content-type": "text/csv"})
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=30) as answer:
        assert answer.status == 200
        return json.load(answer)


def test_the_warehouse(swarm: Swarm) -> None:
    """All six kinds do their work, at whichever node's gateway; to type `up` again changes and restarts nothing."""
    first, *_, last = (f"http://{address}:{PORT}" for address in swarm.addresses.values())
    own = {"port": PORT, "admin_port": ADMIN_PORT, "image": swarm.shoal_image}
    over = {"image": swarm.warehouse_image, "environments": {"staging": {"docker_context": None, "swarm": own}}}
    with tempfile.TemporaryDirectory(prefix="shoal-") as directory:
        home = Path(directory)
        (home / "own.yaml").write_text(json.dumps(over))
        typed = Typed(home, swarm, str(EXAMPLE / "shoal.yaml"), "own.yaml")
        staging = ("-e", "staging")
        try:
            typed("up", "-d", "-y", *staging)
            for number, body in enumerate(batches()):
                ask(f"{(first, last)[number % 2]}/ingest/readings/batch-{number}", body)
            deadline = time.monotonic() + WITHIN_S
            while (report := ask(f"{last}/reporting/report"))["pictures"] < BATCHES // 3:
                assert time.monotonic() < deadline, (report, typed("status", *staging))
                time.sleep(0.5)
            assert report["units"] > 0 and report["expected_demand"] is None
            assert "succeeded" in typed("run", "forecasting", "--wait", *staging)
            assert ask(f"{first}/reporting/report")["expected_demand"] is not None

            before = replicas(typed, staging)
            assert "No changes" in typed("up", "-d", "-y", *staging)
            assert replicas(typed, staging) == before
        finally:
            typed("down", "--volumes", "-y", *staging)


def replicas(typed: Typed, words: tuple[str, ...]) -> dict[str, int]:
    """How often each of those that always run was started again."""
    found = json.loads(typed("status", "-o", "json", *words))["agents"]
    assert {agent["name"]: agent["state"] for agent in found if agent["state"] not in ("ok", "asleep")} == {}
    return {each["id"]: each["restarts"] for agent in found if agent["min"] for each in agent["replicas"]}
