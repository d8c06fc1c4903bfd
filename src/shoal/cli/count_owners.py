"""Whose an agent's count is where that is not Shoal, so that a plan can say what is left alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shoal.cli.status_text import describe_owner
from shoal.errors import ShoalError

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.core.record import AgentRecord


async def describe_owners(client: Client, records: Mapping[str, AgentRecord]) -> tuple[str, ...]:
    """A note for each agent whose count somebody else sets, though nobody was asked to; without a controller nobody can
    tell who that is."""
    if all(record.held_since is None for record in records.values()):
        return ()
    try:
        agents = (await client.status()).agents
    except ShoalError:
        return ()
    now = time.time()
    return tuple(
        f"{agent.name}: its count is set by {describe_owner(agent, now)}"
        for agent in agents
        if agent.owner is not None and not agent.owner.delegated
    )
