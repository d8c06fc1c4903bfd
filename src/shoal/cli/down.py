"""`shoal down`: drain and stop everything, by the controller that runs or by one that is started for it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.consent import ask
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, pass_common
from shoal.cli.output import say
from shoal.cli.own_fleet import require_own_fleet
from shoal.errors import ControllerUnavailable, ShoalError

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.cli.progress import Progress

_ASKED_S = 0.1


@click.command(short_help="Stop the fleet.")
@click.option("--volumes", is_flag=True, help="Delete its volumes and queues too. They are gone for good.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask before volumes are deleted.")
@decorate(FLEET_OPTIONS)
@pass_common
def down(common: Common, volumes: bool, yes: bool) -> int:
    """Stop the fleet: agents finish what they have within their stop_grace_period, then the gateway and the broker end.

    Works without a controller too. Volumes and queues stay unless --volumes is given. Ctrl-C leaves it going.
    """
    fleet, directory, client = common.fleet_name(), common.directory(), common.client()
    require_own_fleet(common)
    if volumes and not yes and sys.stdin.isatty():
        ask(f"Delete the volumes and queues of {fleet} for good?")
    return asyncio.run(_down_or_leave(client, directory, fleet, volumes))


async def _down_or_leave(client: Client, directory: Path, fleet: str, volumes: bool) -> int:
    """Until all is stopped or, once the end of the fleet is stored, until Ctrl-C. Gives the exit code."""
    from shoal.cli.interrupts import noted_interrupts

    with noted_interrupts() as interrupts:
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(_down(client, directory, fleet, volumes))
            leaving = tasks.create_task(interrupts.first.wait())
            await asyncio.wait((ending, leaving), return_when=asyncio.FIRST_COMPLETED)
            while not ending.done() and await _is_stored(directory):
                await asyncio.wait((ending,), timeout=_ASKED_S)
            ending.cancel()
            leaving.cancel()
        if ending.cancelled():
            say(f"{fleet} goes on ending in the background; `shoal down` waits for it.")
            return interrupts.exit_code(1)
    if ending.result():
        click.echo(f"{fleet}: everything is stopped" + (", volumes and queues are deleted" if volumes else ""))
    else:
        click.echo(f"{fleet}: nothing runs here")
    return 0


async def _is_stored(directory: Path) -> bool:
    from shoal.cli.stored_fleet import read_stored

    stored = await read_stored(directory)
    return stored is not None and stored.fleet is not None


async def _down(client: Client, directory: Path, fleet: str, volumes: bool) -> bool:
    """False where there was nothing to stop."""
    from shoal.cli.controller_process import answers, start_controller, wait_answers, wait_ended
    from shoal.cli.progress import Progress

    started = None
    if not await answers(client):
        if not await _anything_left(directory, volumes):
            await _tidy(directory, volumes)  # somebody may have left an earlier `down` before its end
            return False
        say("No controller answers; starting one to stop what it finds ...")
        started = start_controller(directory, fleet)
        await wait_answers(client, started)
    with Progress() as progress:
        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(_show(client, progress))
            await client.down(volumes=volumes)
            showing.cancel()
    if not await wait_ended(directory, started):
        raise ShoalError(f"everything is stopped, but the controller does not end; see {directory / 'controller.log'}")
    if volumes and (left := directory / "volumes").exists():
        raise ShoalError(
            f"everything is stopped, but not all of {left} could be deleted: agents left files there that belong to "
            "somebody else, or are protected (delete it by hand)"
        )
    await _tidy(directory, volumes)
    return True


async def _tidy(directory: Path, volumes: bool) -> None:
    """What is of no use once nothing runs, and none of the controller's."""
    from shoal.cli.controller_process import remove_sockets
    from shoal.cli.secret_values import forget_secrets

    if directory.exists():
        await forget_secrets(directory, all_of_them=volumes)
        remove_sockets(directory)


async def _show(client: Client, progress: Progress) -> None:
    try:
        async with aclosing(client.watch()) as views:
            async for view in views:
                progress.show(view)
    except ControllerUnavailable:
        return  # that it ends is what was asked for


async def _anything_left(directory: Path, volumes: bool) -> bool:
    """Whether a fleet is stored, or something of one is still there though its controller is not."""
    from shoal.cli.stored_fleet import read_stored

    stored = await read_stored(directory)
    if stored is None:
        return False
    kept = [directory / "volumes", directory / "platform"] if volumes else []
    return stored.fleet is not None or any((directory / "agents").glob("*/lives/*")) or any(p.exists() for p in kept)
