"""`python -m shoal.engines.swarm.node.sweep FLEET`: removes a fleet's volumes from this node, as the last of it."""

from __future__ import annotations

import asyncio
import sys

from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker, find_endpoint
from shoal.errors import EngineError

_GONE_S = 30.0  # containers that ended are removed by Swarm a moment later
_AGAIN_S = 0.5


async def sweep(docker: Docker, fleet: str, within_s: float = _GONE_S) -> list[str]:
    """The names of those that a container still has when the time is over, with Docker's words."""
    end = asyncio.get_running_loop().time() + within_s
    while True:
        kept: list[str] = []
        for volume in await docker.volumes({names.FLEET: fleet}):
            try:
                await docker.remove_volume(volume["Name"])
            except EngineError as error:
                kept.append(f"{volume['Name']}: {error}")
        if not kept or asyncio.get_running_loop().time() >= end:
            return kept
        await asyncio.sleep(_AGAIN_S)


async def _main(fleet: str) -> int:
    async with Docker(find_endpoint(None, {})) as docker:
        kept = await sweep(docker, fleet)
    print(*kept, sep="\n", file=sys.stderr)
    return 1 if kept else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(sys.argv[1])))
