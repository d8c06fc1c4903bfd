"""image-processing: resizes pictures, and sends what remains to be read on to metadata-extraction.

A task may come twice (a worker that died before its acknowledgement). Resizing again does no harm, and the task that
follows carries the same id, so the next queue drops the second one.
"""

from __future__ import annotations

import asyncio

from shoal.sdk import Task, publish, worker

from .pictures import fetch, resize
from .sink import record


@worker
async def handle(task: Task) -> None:
    """One picture. The resizing is in a thread, so that the task's heartbeat goes on."""
    order = task.json()
    thumbnails = await asyncio.to_thread(lambda: resize(fetch(order["picture"])))
    sizes = {str(width): len(thumbnail) for width, thumbnail in thumbnails.items()}
    await publish("metadata_tasks", {**order, "thumbnails": sizes}, id=task.id)
    record("image", task.id)


if __name__ == "__main__":
    handle.run()
