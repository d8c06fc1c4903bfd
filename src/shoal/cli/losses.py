"""What a change would take out of the fleet although it holds data: told before anything is stored."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.output import count_of
from shoal.errors import PlanError
from shoal.units import format_memory

if TYPE_CHECKING:
    from shoal.cli.plan import Intent
    from shoal.spec.model import Fleet

ALLOW_DELETE = click.option(
    "--allow-delete", is_flag=True, help="Go on though agents with volumes, or queues with tasks, leave the fleet."
)


async def refuse_losses(intent: Intent) -> None:
    """Raises PlanError, naming all of it, where something that holds data would leave the fleet."""
    from shoal.cli.kept_queues import count_messages
    from shoal.cli.stored_fleet import read_stored

    stored = await read_stored(intent.directory)
    if stored is None or stored.fleet is None:
        return
    messages = await count_messages(intent.directory, stored.fleet, intent.fleet)
    losses = list(describe_losses(intent.directory, stored.fleet, intent.fleet, messages))
    if losses:
        raise PlanError(
            "this takes out of the fleet what holds data:\n"
            + "\n".join(f"  {loss}" for loss in losses)
            + "\nKeep it in the file, or add --allow-delete: the data then stay where they are, and nobody uses them, "
            "until `shoal down --volumes`"
        )


def describe_losses(directory: Path, old: Fleet, new: Fleet, messages: Mapping[str, int]) -> Iterator[str]:
    """A line for each volume that holds something and each queue with messages that `new` has not any more."""
    from shoal.core.plan import named_volumes

    kept = named_volumes(new)
    for (name, owner), agents in sorted(named_volumes(old).items(), key=str):
        if (name, owner) in kept:
            continue
        if owner is None:
            files, size = _size(directory / "volumes" / "shared" / name)
            held, whose = files, f"of {', '.join(agents)}"
        else:
            sizes = [_size(path) for path in (directory / "volumes" / "owned" / owner).glob(f"*/{name}")]
            held, size = sum(files for files, _ in sizes), sum(size for _, size in sizes)
            whose = f"of {count_of(len(sizes), 'replica')} of {owner}"
        if held:
            yield f"volume {name} {whose}: {count_of(held, 'file')}, {format_memory(size)}"
    for queue in sorted(set(old.queues) - set(new.queues)):
        if messages.get(queue):
            yield f"queue {queue}: {count_of(messages[queue], 'task')}, dead letters included"


def _size(folder: Path) -> tuple[int, int]:
    """How many files there are below it, and their bytes."""
    sizes = [path.lstat().st_size for root, _, names in os.walk(folder) for path in (Path(root) / n for n in names)]
    return len(sizes), sum(sizes)
