"""What the replicas wrote, while no controller is there to ask: read from the files that they write themselves, and
masked as the controller does it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from shoal.api.views import LOG_TAIL_LINES, LogView
from shoal.control.secret_contents import SecretContents
from shoal.engines.local.layout import Layout, directories
from shoal.engines.local.log_reading import read_logs
from shoal.errors import NotFound


async def read_logs_on_disk(
    directory: Path, agents: Sequence[str], since: float | None, tail: int | None
) -> AsyncGenerator[LogView]:
    """Lines of the agents, or of all, the oldest first. Raises NotFound for an agent of which nothing is there."""
    layout = Layout(directory)
    known = [path.name for path in directories(layout.agents)]
    for agent in agents:
        if agent not in known:
            raise NotFound(f"nothing of an agent {agent!r} is on disk; there are: {', '.join(known) or 'none'}")
    mask = SecretContents(directory).mask
    paths = {agent: list(directories(layout.logs(agent))) for agent in agents or known}
    for line in read_logs(paths, since, LOG_TAIL_LINES if tail is None and since is None else tail):
        yield LogView(line.replica, line.agent, mask(line.text), line.stream, line.at)
