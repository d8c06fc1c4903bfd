"""Lines of many replicas as one stream, whichever of these come and go meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress

from shoal.engines.protocol import LogLine

_WAITING_LINES = 1000


async def gathered(
    find: Callable[[asyncio.Queue[LogLine], asyncio.TaskGroup], Coroutine[None, None, None]],
) -> AsyncGenerator[LogLine]:
    """What `find` puts into the queue, by tasks of the group, until whoever reads goes."""
    queue: asyncio.Queue[LogLine] = asyncio.Queue(_WAITING_LINES)
    async with asyncio.TaskGroup() as tasks:
        finder = tasks.create_task(find(queue, tasks))
        try:
            with suppress(GeneratorExit):  # a group would make an error of it
                while True:
                    yield await queue.get()
        finally:
            finder.cancel()
