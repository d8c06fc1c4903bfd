"""`shoal up`: plan, store by compare-and-set, see to it that a controller is there, and wait until all is settled."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.options import SPEC_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import count_of, emit, say
from shoal.cli.plan import Intent, colour_plan, make_intent
from shoal.cli.since import Span
from shoal.errors import ControllerUnavailable, ShoalError
from shoal.units import format_duration

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.api.views import StatusView
    from shoal.cli.controller_process import Started
    from shoal.cli.progress import Progress
    from shoal.cli.settling import Settling

_SURE_S = 0.1


@click.command(short_help="Start the fleet, or bring it to what the file says.")
@click.argument("agents", metavar="[AGENT]...", nargs=-1, shell_complete=complete_agents)
@click.option("-d", "--detach", is_flag=True, help="Return once all is settled, and leave the fleet running.")
@click.option(
    "--wait-timeout", type=Span(), default="10m", show_default=True, help="How long it may take until all is settled."
)
@click.option("-y", "--yes", is_flag=True, help="Don't ask before agents are removed or recreated.")
@decorate(SPEC_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def up(common: Common, agents: tuple[str, ...], detach: bool, wait_timeout: float, yes: bool) -> int:
    """Start the fleet, or bring it to what the file says.

    Shows the plan, stores it, and waits until it is carried out. With AGENT, only these change. Secrets are taken from
    the variables of their names.

    Without -d it stays and shows the fleet; Ctrl-C then drains and stops everything, and a second Ctrl-C hurries. If
    the fleet was running already, Ctrl-C only ends the view. A version that never gets ready is told with the last
    lines that it wrote, and the exit code is 1; what served before goes on serving.
    """
    intent = asyncio.run(make_intent(common, agents))
    if common.output == "text":
        click.echo(colour_plan(intent.plan), err=True)
    _confirm(intent, yes)
    return asyncio.run(_up(common, intent, agents, detach, wait_timeout))


def _confirm(intent: Intent, yes: bool) -> None:
    ending = [
        change.agent for change in intent.plan.changes if change.class_ in {"remove", "recreate"} and change.agent
    ]
    if ending and not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(f"This ends replicas of {', '.join(ending)} before any come in their place. Go on?",
                      abort=True, err=True)  # fmt: skip


async def _up(common: Common, intent: Intent, agents: tuple[str, ...], detach: bool, timeout_s: float) -> int:
    from shoal.api.client import Client, socket_path
    from shoal.cli.settling import Settling

    generation = await _store(intent)
    client = Client(socket_path(intent.directory))
    started = await _ensure_controller(client, intent)
    settling = Settling(generation, agents)
    if not detach:
        from shoal.cli.foreground import Foreground

        return await Foreground(client, intent.directory, settling, started, timeout_s).stay()
    try:
        view = await wait_settled(client, settling, timeout_s)
    except asyncio.CancelledError:
        say("It goes on in the background: `shoal status -w` shows it, `shoal down` stops it.")
        raise
    if common.output == "text":
        click.echo(describe_settled(view))
    else:
        emit(view, common.output)
    return 0


async def _store(intent: Intent) -> int:
    """Store what differs; where nothing does, the generation stays.

    Secrets go first: a command that dies in between leaves one too many, never a fleet that lacks one.
    """
    from shoal.cli.secret_values import write_secrets
    from shoal.cli.stored_fleet import make_state_directory, write_stored

    make_state_directory(intent.directory)
    write_secrets(intent.directory, intent.secrets)
    if not intent.plan and intent.generation:
        return intent.generation
    return await write_stored(intent.directory, intent.fleet, str(intent.project), intent.generation)


async def _ensure_controller(client: Client, intent: Intent) -> Started | None:
    """Tell the controller that is there, or start one; gives what was started."""
    from shoal.cli.controller_process import start_controller, wait_answers

    try:
        await client.apply()
    except ControllerUnavailable:
        say(f"Starting the controller of {intent.fleet.fleet} ...")
        started = start_controller(intent.directory, intent.fleet.fleet)
        await wait_answers(client, started)
        return started
    return None


async def wait_settled(client: Client, settling: Settling, timeout_s: float) -> StatusView:
    """Show progress until all is settled. Raises ShoalError with what is in the way where that never happens."""
    from shoal.cli.progress import Progress

    with Progress() as progress:
        try:
            async with asyncio.timeout(timeout_s):
                return await _watch_settle(client, settling, progress)
        except TimeoutError:
            last = progress.last
            why = describe_failure(settling, last) if last is not None else "the controller said nothing"
            raise ShoalError(f"not settled after {format_duration(timeout_s)}:\n{why}") from None


async def _watch_settle(client: Client, settling: Settling, progress: Progress) -> StatusView:
    from shoal.cli.settling import Verdict

    async with aclosing(client.watch()) as views:
        async for view in views:
            progress.show(view)
            verdict = settling.judge(view, time.monotonic())
            if verdict is Verdict.FAILED:
                raise ShoalError(describe_failure(settling, view))
            if verdict is Verdict.SETTLED:
                await asyncio.sleep(_SURE_S)  # the first look may have come between two steps of the controller
                again = await client.status()
                if settling.judge(again, time.monotonic()) is Verdict.SETTLED:
                    return again
    raise ControllerUnavailable("the controller ended before all was settled; `shoal up` starts it again")


def describe_settled(view: StatusView) -> str:
    """One line: the fleet is as the file says."""
    where = f" at {view.gateway_url}" if view.gateway_url else ""
    return f"{view.fleet}: {count_of(len(view.agents), 'agent')} settled as generation {view.generation}{where}"


def describe_failure(settling: Settling, view: StatusView) -> str:
    """Why it is not settled, with the last lines that were written, and what to do."""
    from shoal.cli.status_text import describe_trouble

    trouble = describe_trouble(view, settling.in_the_way(view))
    return f"{trouble}\n\nThe fleet goes on with what it had. Change the file and run `shoal up` again."
