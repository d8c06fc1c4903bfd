"""What is in the queues that a new fleet has no more, so that a plan can say what the broker keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import ShoalError

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.spec.model import Fleet


async def count_messages(client: Client, old: Fleet | None, new: Fleet) -> dict[str, int]:
    """Tasks and dead letters by queue; without a controller, or a broker, what can't be known is left out."""
    if old is None or set(old.queues) <= set(new.queues):
        return {}
    try:
        queues = await client.queues()
    except ShoalError:
        return {}
    return {queue.name: queue.waiting + queue.in_progress + queue.dead for queue in queues}
