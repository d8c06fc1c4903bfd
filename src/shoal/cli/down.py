"""`shoal down`: drain and stop everything, by the controller that runs or by one that is started for it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from shoal.cli.consent import ask_before_loss
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, pass_common
from shoal.cli.output import say
from shoal.cli.own_fleet import require_own_fleet
from shoal.errors import ControllerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.cli.place import Ender, Place
    from shoal.cli.progress import Progress

_ASKED_S = 0.1


@click.command(short_help="Stop the fleet.")
@click.option("--volumes", is_flag=True, help="Delete its volumes and queues too. They are gone for good.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask before data are deleted; without a terminal it needs this.")
@decorate(FLEET_OPTIONS)
@pass_common
def down(common: Common, volumes: bool, yes: bool) -> int:
    """Stop the fleet: agents finish what they have within their stop_grace_period, then the gateway and the broker end.

    Works without a controller too. Volumes and queues stay unless --volumes is given. Ctrl-C leaves it going.
    """
    place = common.place()
    require_own_fleet(common)
    if volumes and not yes:
        loss = f"`shoal down --volumes` deletes the volumes and queues of {place.fleet} for good"
        ask_before_loss(loss, f"Delete the volumes and queues of {place.fleet} for good?")
    return asyncio.run(_down_or_leave(place, volumes, common.name_environments))


async def _down_or_leave(place: Place, volumes: bool, name_environments: Callable[[], str]) -> int:
    """Until all is stopped or, once the end of the fleet is stored, until Ctrl-C. Gives the exit code."""
    from shoal.cli.interrupts import noted_interrupts

    with noted_interrupts() as interrupts:
        asked = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(_down(place, volumes, asked))
            leaving = tasks.create_task(interrupts.first.wait())
            await asyncio.wait((ending, leaving), return_when=asyncio.FIRST_COMPLETED)
            while not ending.done() and (not asked.is_set() or await _is_stored(place)):
                await asyncio.wait((ending,), timeout=_ASKED_S)
            ending.cancel()
            leaving.cancel()
        if ending.cancelled():
            say(f"{place.fleet} goes on ending in the background; `shoal down` waits for it.")
            return interrupts.exit_code(1)
    if ending.result():
        click.echo(f"{place.fleet}: everything is stopped" + (", volumes and queues are deleted" if volumes else ""))
    else:
        click.echo(f"{place.fleet}: nothing runs here{name_environments()}")
    return 0


async def _is_stored(place: Place) -> bool:
    from shoal.cli.stored_fleet import read_stored

    stored = await read_stored(place)
    return stored is not None and stored.fleet is not None


async def _down(place: Place, volumes: bool, asked: asyncio.Event) -> bool:
    """False where there was nothing to stop. `asked` is set as soon as somebody is told to stop it."""
    from shoal.cli.progress import Progress
    from shoal.cli.secret_values import forget_secrets

    ender = await place.ender(data=volumes)
    if ender is not None:
        with Progress() as progress:
            async with asyncio.TaskGroup() as tasks:
                showing = tasks.create_task(_show(ender, progress))
                asked.set()
                await _end(ender, place, volumes)
                showing.cancel()
    if volumes:
        await forget_secrets(place, all_of_them=True)
        await place.tidy(data=True)  # also what an earlier `down` was kept from
    else:
        await place.tidy(data=False)
        await forget_secrets(place)  # a controller that was given them holds on to them
    return ender is not None


async def _end(ender: Ender, place: Place, volumes: bool) -> None:
    try:
        await ender.down(volumes=volumes)
    except ControllerUnavailable as error:
        if place.shared and await _is_stored(place):
            raise  # it did not take the order, and says why
        raise ControllerUnavailable(
            f"the controller of {place.fleet} went away before everything was stopped; `shoal down` again stops what "
            "is left"
        ) from error


async def _show(ender: Ender, progress: Progress) -> None:
    try:
        async with aclosing(ender.watch()) as views:
            async for view in views:
                progress.show(view)
    except ControllerUnavailable:
        return  # that it ends is what was asked for
