"""metadata-extraction: reads what the camera wrote into a picture, and has inventory keep it."""

from __future__ import annotations

from dataclasses import asdict

from shoal.sdk import Reject, Task, worker

from . import inventory_client
from .pictures import fetch, read_details
from .sink import record


@worker(concurrency=4)
def handle(task: Task) -> None:
    """One picture. A plain function: Shoal runs it in a thread of its own."""
    order = task.json()
    try:
        details = read_details(fetch(order["picture"]))
    except KeyError as missing:
        raise Reject(f"{order['picture']} has no {missing}") from missing
    inventory_client.put(f"/pictures/{task.id}", {**order, **asdict(details)})
    record("metadata", task.id)


if __name__ == "__main__":
    handle.run()
