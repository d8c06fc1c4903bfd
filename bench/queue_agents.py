"""The agents of the queue bench: a job that publishes with confirmation, and a worker that does nothing with a task.

    python bench/queue_agents.py publish | work

The job prints a line of JSON for each window of publishes under way at once; the worker, for each 50 tasks, how many
it did and when.
"""

import asyncio
import json
import os
import sys
import time

from shoal.sdk import Task, close, publish, worker

QUEUE = "bench"
SECONDS = float(os.environ.get("SECONDS_EACH", "3"))
PAYLOAD = b"x" * 200
_done = 0


@worker(concurrency=int(os.environ.get("CONCURRENCY", "16")))
async def work(_task: Task) -> None:
    global _done  # noqa: PLW0603 - one process, one count
    _done += 1
    if _done % 50 == 0:
        print(json.dumps({"done": _done, "at": time.time()}), flush=True)


async def publish_all() -> None:
    await publish(QUEUE, PAYLOAD)  # connected
    for window in (1, 16, 256):
        per_s = await _rate(window)
        print(json.dumps({"window": window, "per_s": per_s, "at": time.time()}), flush=True)
    await close()


async def _rate(window: int) -> float:
    began = time.perf_counter()

    async def one_after_the_other() -> int:
        sent = 0
        while time.perf_counter() - began < SECONDS:
            await publish(QUEUE, PAYLOAD)
            sent += 1
        return sent

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one_after_the_other()) for _ in range(window)]
    return sum(task.result() for task in running) / (time.perf_counter() - began)


if __name__ == "__main__":
    if sys.argv[1] == "publish":
        asyncio.run(publish_all())
    else:
        work.run()
