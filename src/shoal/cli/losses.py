"""What a change would take out of the fleet although it holds data: told before anything is stored."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

import click

from shoal.cli.output import count_of
from shoal.errors import PlanError
from shoal.units import format_memory

if TYPE_CHECKING:
    from shoal.cli.place import Place
    from shoal.cli.plan import Intent
    from shoal.spec.model import Fleet

ALLOW_DELETE = click.option(
    "--allow-delete", is_flag=True, help="Go on though agents with volumes, or queues with tasks, leave the fleet."
)


async def refuse_losses(intent: Intent) -> None:
    """Raises PlanError, naming all of it, where something that holds data would leave the fleet."""
    from shoal.cli.kept_queues import count_messages
    from shoal.cli.stored_fleet import read_stored

    stored = await read_stored(intent.place)
    if stored is None or stored.fleet is None:
        return
    messages = await count_messages(intent.place.client(), stored.fleet, intent.fleet)
    losses = [loss async for loss in _losses(intent.place, stored.fleet, intent.fleet, messages)]
    if losses:
        raise PlanError(
            "this takes out of the fleet what holds data:\n"
            + "\n".join(f"  {loss}" for loss in losses)
            + "\nKeep it in the file, or add --allow-delete: the data then stay where they are, and nobody uses them, "
            "until `shoal down --volumes`"
        )


async def _losses(place: Place, old: Fleet, new: Fleet, messages: Mapping[str, int]) -> AsyncGenerator[str]:
    """A line for each volume that holds something and each queue with messages that `new` has not any more."""
    from shoal.core.plan import named_volumes

    kept = named_volumes(new)
    for (name, owner), agents in sorted(named_volumes(old).items(), key=str):
        if (name, owner) in kept:
            continue
        use = await place.volume_use(name, owner)
        if use.files is None or use.size_bytes is None or use.replicas is None:
            yield f"volume {name} of {owner or ', '.join(agents)}: what it holds can't be seen from here"
        elif use.files:
            whose = ", ".join(agents) if owner is None else f"{count_of(use.replicas, 'replica')} of {owner}"
            yield f"volume {name} of {whose}: {count_of(use.files, 'file')}, {format_memory(use.size_bytes)}"
    for queue in sorted(set(old.queues) - set(new.queues)):
        if messages.get(queue):
            yield f"queue {queue}: {count_of(messages[queue], 'task')}, dead letters included"
