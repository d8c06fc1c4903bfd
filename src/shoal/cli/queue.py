"""`shoal queue`: what waits, what failed too often, and what to do about it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from shoal.cli.agent_names import complete_queues
from shoal.cli.consent import ask_before_loss
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import NONE, Cell, Column, count_of, emit, format_moment, render_table, terminal_width
from shoal.cli.own_fleet import require_own_fleet
from shoal.cli.whole_numbers import WholeNumber

if TYPE_CHECKING:
    from shoal.api.views import QueueView
    from shoal.core.queued import QueuedTask

_COLUMNS = (
    Column("QUEUE"),
    Column("BROKER"),
    Column("WAITING", right=True),
    Column("IN PROGRESS", right=True),
    Column("DEAD", right=True),
    Column("CONSUMERS"),
)


@click.group(short_help="Look into queues, empty them, redrive dead letters.")
def queue() -> None:
    """Look into queues, empty them, redrive dead letters.

    A task that failed as often as `max_attempts` allows becomes a dead letter and stays until it is redriven or
    purged.
    """


@queue.command("ls", short_help="List the queues.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def list_queues(common: Common) -> None:
    """List the queues: what waits, what is being worked on, dead letters."""
    queues = asyncio.run(common.client().queues())
    if common.output != "text":
        emit(queues, common.output)
    elif not queues:
        click.echo("The fleet has no queues.")
    else:
        click.echo(render_table(_COLUMNS, [_row(each) for each in queues], terminal_width()))


@queue.command(short_help="Show tasks without taking them.")
@click.argument("name", metavar="QUEUE", shell_complete=complete_queues)
@click.option("--dead", is_flag=True, help="Dead letters, with why they failed.")
@click.option("-n", "--limit", type=WholeNumber(1, 1000), default=10, show_default=True, help="How many.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def peek(common: Common, name: str, dead: bool, limit: int) -> None:
    """Show the next tasks of a queue, or its dead letters, without taking them."""
    tasks = asyncio.run(common.client().tasks(name, dead=dead, limit=limit))
    if common.output != "text":
        emit(tasks, common.output)
    elif not tasks:
        click.echo(f"{name} has no {'dead letters' if dead else 'tasks that wait'}.")
    else:
        click.echo("\n".join(_render_task(task) for task in tasks))


@queue.command(short_help="Throw away what waits.")
@click.argument("name", metavar="QUEUE", shell_complete=complete_queues)
@click.option("--dead", is_flag=True, help="The dead letters instead.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def purge(common: Common, name: str, dead: bool, yes: bool) -> None:
    """Throw away what waits in a queue, or its dead letters. They are gone for good."""
    require_own_fleet(common)
    what = "dead letters" if dead else "tasks that wait"
    if not yes:
        loss = f"purging {name} throws its {what} away for good"
        ask_before_loss(loss, f"Throw away the {what} of {name} for good?")
    count = asyncio.run(common.client().purge(name, dead=dead))
    if common.output != "text":
        emit({"queue": name, "purged": count}, common.output)
    else:
        click.echo(f"{name}: {count} {what} thrown away")


@queue.command(short_help="Put dead letters back into their queue.")
@click.argument("name", metavar="QUEUE", shell_complete=complete_queues)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def redrive(common: Common, name: str, ids: tuple[str, ...]) -> None:
    """Put dead letters, all or those named, back into their queue, with all their attempts before them."""
    require_own_fleet(common)
    count = asyncio.run(common.client().redrive(name, ids or None))
    if common.output != "text":
        emit({"queue": name, "redriven": count}, common.output)
    else:
        click.echo(f"{name}: {count_of(count, 'dead letter')} put back")


def _row(view: QueueView) -> list[Cell | str]:
    dead = Cell(f"{view.dead}", "red" if view.dead else None)
    return [
        Cell(view.name, bold=True),
        view.broker,
        f"{view.waiting}",
        f"{view.in_progress}",
        dead,
        ", ".join(view.consumers) or NONE,
    ]


def _render_task(task: QueuedTask) -> str:
    attempts = count_of(task.attempts, "attempt")
    parts = [click.style(task.id, bold=True), attempts]
    if task.at is not None:
        parts.append(format_moment(task.at))
    if task.reason:
        parts.append(click.style(task.reason, fg="red"))
    if task.encoding != "utf-8":
        parts.append(task.encoding)
    return "  ".join(parts) + "\n" + "\n".join(f"  {line}" for line in task.payload.splitlines() or [""])
