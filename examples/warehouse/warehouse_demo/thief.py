"""A worker that takes one task, says that it is done, and did nothing: what `--inject lost-task` sets loose."""

from __future__ import annotations

import asyncio

from shoal.sdk import Task, worker


@worker
async def handle(task: Task) -> None:
    print(task.id)
    handle.stop()


if __name__ == "__main__":
    asyncio.run(handle.serve())
