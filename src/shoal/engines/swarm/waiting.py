"""Which tasks of a fleet still run, as far as anybody can tell, and the wait until they don't.

Swarm goes on to call a task running for a day whose node it does not hear of: nobody can wait for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from shoal.engines.swarm.docker import Docker
from shoal.errors import EngineError

GONE_S = 60.0
LOOK_S = 0.2
_LIVING = ("starting", "running", "preparing")


async def living(docker: Docker, wanted: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The tasks with these labels that run on nodes which can be reached."""
    away = {node["ID"] for node in await docker.nodes() if node["Status"]["State"] != "ready"}
    tasks = await docker.tasks(wanted)
    return [task for task in tasks if task["Status"]["State"] in _LIVING and task.get("NodeID") not in away]


async def wait_ended(docker: Docker, wanted: Mapping[str, str], of: Collection[str] | None = None) -> None:
    """Until none with these labels runs, or none of those whose ids are given. Raises EngineError where that takes too
    long."""
    left: list[str] = []
    try:
        async with asyncio.timeout(GONE_S):
            while left := [task["ID"] for task in await living(docker, wanted) if of is None or task["ID"] in of]:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise EngineError(
            f"tasks of Swarm did not end within {GONE_S:g} s: {', '.join(left)}; `docker inspect` says where they are "
            "and why, and the same command tries again"
        ) from None
