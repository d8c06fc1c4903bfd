"""What agents import. Law: light to import, and depends on nothing else of Shoal.

    from shoal.sdk import worker

    @worker(concurrency=4)
    async def handle(task):
        ...

    handle.run()

`publish` sends a task to a queue that the agent declares under `publishes`. Workers in other languages follow
`docs/workers.md`; this package does nothing that is not written there.
"""

from __future__ import annotations

from shoal.sdk.publishing import close, publish
from shoal.sdk.task import QueueError, Reject, Retry, Task
from shoal.sdk.worker import Worker, worker

__all__ = ["QueueError", "Reject", "Retry", "Task", "Worker", "close", "publish", "worker"]
