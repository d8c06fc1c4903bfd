"""`shoal up`: plan, store by compare-and-set, see to it that a controller is there, and wait until all is settled."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.consent import ask
from shoal.cli.losses import ALLOW_DELETE, refuse_losses
from shoal.cli.options import SPEC_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import count_of, emit, say
from shoal.cli.plan import ADOPT, Intent, colour_plan, make_intent
from shoal.cli.since import WAIT_TIMEOUT
from shoal.errors import Conflict, ControllerUnavailable, EngineUnavailable, ShoalError
from shoal.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.api.views import AgentView, StatusView
    from shoal.cli.interrupts import Interrupts
    from shoal.cli.place import Place, Started
    from shoal.cli.progress import Progress
    from shoal.cli.settling import Settling
    from shoal.control.store import StoredFleet

NOTHING_RUNS = (
    "Nothing runs yet. The controller goes on trying, and starts the fleet once that is out of the way; `shoal down` "
    "ends it."
)
_SURE_S = 0.1


@click.command(short_help="Start the fleet, or bring it to what the file says.")
@click.argument("agents", metavar="[AGENT]...", nargs=-1, shell_complete=complete_agents)
@click.option("-d", "--detach", is_flag=True, help="Return once all is settled, and leave the fleet running.")
@WAIT_TIMEOUT
@click.option("-y", "--yes", is_flag=True, help="Don't ask before agents are removed or recreated.")
@ADOPT
@ALLOW_DELETE
@decorate(SPEC_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def up(
    common: Common,
    agents: tuple[str, ...],
    detach: bool,
    wait_timeout: float,
    yes: bool,
    adopt: bool,
    allow_delete: bool,
) -> int:
    """Start the fleet, or bring it to what the file says.

    Shows the plan, stores it, and waits until it is carried out. With AGENT, only these change. Secrets are taken from
    where the file says, else from the variables of their names; what `shoal secret set` gave stands until its source
    changes.

    Without -d it stays and shows the fleet. On one machine Ctrl-C then, at any moment, drains and stops everything, and
    a second Ctrl-C hurries. So does a closed terminal, except under nohup. On Docker Swarm and Kubernetes, and where
    the fleet was running already, Ctrl-C only ends the view and the fleet goes on.

    A version that never gets ready is told with the last lines that it wrote, and the exit code is 1; what served
    before goes on serving. So is a fleet that can't be started at all, and one that somebody else replaced before it
    was settled.
    """
    intent = asyncio.run(make_intent(common, agents, adopt=adopt))
    if common.output == "text":
        click.echo(colour_plan(intent.plan), err=True)
        if not intent.plan and intent.generation:
            say("Shoal does not watch your source: `shoal restart AGENT` takes up changed code.")
    if intent.adopted_from is not None:
        say(f"{intent.fleet.fleet} is taken over from {intent.adopted_from}: replicas that run go on as they are, new "
            f"ones start in {intent.project}.")  # fmt: skip
    if not allow_delete:
        asyncio.run(refuse_losses(intent))
    confirm(intent, yes)
    return asyncio.run(_up(common, intent, agents, detach, wait_timeout))


def confirm(intent: Intent, yes: bool) -> None:
    """Ask a person before replicas end for which none come first. Raises ShoalError where that is not wished."""
    ending = [
        change.agent for change in intent.plan.changes if change.class_ in {"remove", "recreate"} and change.agent
    ]
    if ending and not yes and sys.stdin.isatty() and sys.stderr.isatty():
        ask(f"This ends replicas of {', '.join(ending)} before any come in their place. Go on?")


async def _up(common: Common, intent: Intent, agents: tuple[str, ...], detach: bool, timeout_s: float) -> int:
    from shoal.cli.interrupts import noted_interrupts

    with noted_interrupts() as interrupts:
        await asyncio.sleep(0)  # a Ctrl-C that came before is told here, with nothing stored
        if detach:
            return await _wait_detached(common, intent, agents, timeout_s, interrupts)
        from shoal.cli.foreground import Foreground

        settling, started = await begin(intent, agents)
        return await Foreground(intent.place, settling, started, timeout_s, interrupts).stay()


async def begin(intent: Intent, agents: tuple[str, ...]) -> tuple[Settling, Started | None]:
    """Store the fleet and see to it that a controller knows: what is begun here is never left half done unsaid."""
    from shoal.cli.secret_values import known_contents
    from shoal.cli.settling import Settling

    generation = await _store(intent)
    try:
        started = await intent.place.tell_or_start(intent.fleet, known_contents(intent.secrets))
    except ShoalError as error:
        raise ShoalError(f"{error}\n\n{await _what_is_stored(intent.place, generation, error)}") from error
    return Settling(generation, agents), started


async def _what_is_stored(place: Place, generation: int, error: ShoalError) -> str:
    """What comes of it without this command."""
    runs = 0
    if not isinstance(error, ControllerUnavailable | EngineUnavailable):
        with suppress(ShoalError):
            runs = (await place.client().status()).observed_generation
    if runs >= generation:
        return f"What runs is generation {runs}, which is stored."
    return (
        f"Generation {generation} is stored all the same, and a controller rolls it out as soon as it is told or "
        f"started{f'; until then generation {runs} runs' if runs else ''}. `shoal up` tells it once that is out of the "
        "way."
    )


async def up_detached(common: Common, intent: Intent, agents: tuple[str, ...], timeout_s: float) -> int:
    """Store, and wait until it is carried out; Ctrl-C leaves it going. Gives the exit code."""
    from shoal.cli.interrupts import noted_interrupts

    with noted_interrupts() as interrupts:
        return await _wait_detached(common, intent, agents, timeout_s, interrupts)


async def _wait_detached(
    common: Common, intent: Intent, agents: tuple[str, ...], timeout_s: float, interrupts: Interrupts
) -> int:
    settling, _ = await begin(intent, agents)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(wait_settled(intent.place, settling, timeout_s))
        leaving = tasks.create_task(interrupts.first.wait())
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        leaving.cancel()
    if waiting.cancelled():
        say("It goes on in the background: `shoal status -w` shows it, `shoal down` stops it.")
        return interrupts.exit_code(1)
    view = waiting.result()
    if common.output == "text":
        click.echo(describe_settled(view))
    else:
        emit(view, common.output)
    return 0


async def _store(intent: Intent) -> int:
    """Store what differs; where nothing does, the generation stays.

    The contents of secrets go first: a command that dies in between leaves one too many, never a fleet that lacks one.
    """
    from shoal.cli.secret_values import known_contents, store_choices
    from shoal.cli.stored_fleet import who_am_i, write_secrets, write_stored

    secrets = await store_choices(await intent.place.contents(make=True), intent.secrets, who_am_i())
    if not intent.plan.changes and intent.generation and intent.adopted_from is None:
        await write_secrets(intent.place, secrets, intent.generation, intent.known_secrets)
        return intent.generation
    try:
        await intent.place.try_out(intent.fleet, known_contents(intent.secrets), secrets)
    except ShoalError as error:
        raise ShoalError(f"{error}\n\nNo new generation is stored, and nothing that runs changes.") from error
    return await write_stored(
        intent.place,
        intent.fleet,
        str(intent.project),
        intent.generation,
        secrets,
        intent.known_secrets,
        intent.nonces,
        intent.what,
    )


async def wait_settled(place: Place, settling: Settling, timeout_s: float) -> StatusView:
    """Show progress until all is settled. Raises ShoalError with what is in the way where that never happens."""
    from shoal.cli.progress import Progress
    from shoal.cli.stored_fleet import read_stored

    with Progress() as progress:
        try:
            async with asyncio.timeout(timeout_s):
                return await _watch_settle(place, settling, progress)
        except ControllerUnavailable:
            stored = await read_stored(place)
            if stored is not None and stored.generation > settling.generation:
                raise Conflict(describe_superseded(settling, stored)) from None
            raise
        except TimeoutError:
            last = progress.last
            why = describe_failure(settling, last) if last is not None else "the controller said nothing"
            raise ShoalError(f"not settled after {format_duration(timeout_s)}:\n{why}") from None


async def _watch_settle(place: Place, settling: Settling, progress: Progress) -> StatusView:
    from shoal.cli.settling import Verdict
    from shoal.cli.stored_fleet import read_stored
    from shoal.cli.watching import watch

    client = place.client()
    async with aclosing(watch(place)) as views:
        async for view in views:
            progress.show(view)
            verdict = settling.judge(view, time.monotonic())
            if verdict is Verdict.FAILED:
                raise ShoalError(describe_failure(settling, view))
            if verdict is Verdict.SUPERSEDED:
                raise Conflict(describe_superseded(settling, await read_stored(place)))
            if verdict is Verdict.SETTLED:
                await asyncio.sleep(_SURE_S)  # the first look may have come between two steps of the controller
                with suppress(ControllerUnavailable):  # it moves just now: the next one is watched
                    again = await client.status()
                    if settling.judge(again, time.monotonic()) is Verdict.SETTLED:
                        return again
    raise ControllerUnavailable("the controller ended before all was settled; `shoal up` starts it again")


def describe_settled(view: StatusView) -> str:
    """One line: the fleet is as the file says."""
    where = f" at {view.gateway_url}" if view.gateway_url else ""
    return f"{view.fleet}: {count_of(len(view.agents), 'agent')} settled as generation {view.generation}{where}"


def describe_superseded(settling: Settling, stored: StoredFleet | None) -> str:
    """Who stored another generation before this one was settled."""
    if stored is None:
        return f"generation {settling.generation} is not stored any more"
    if stored.fleet is None:
        return f"generation {settling.generation} was taken down before it was settled; `shoal up` starts it again"
    return (
        f"generation {settling.generation} was superseded before it was settled: generation {stored.generation} was "
        f"stored by {stored.by} from {stored.directory}; look at `shoal plan`, then `shoal up` again if yours is meant"
    )


def describe_failure(settling: Settling, view: StatusView) -> str:
    """Why it is not settled, with the last lines that were written, and what to do."""
    from shoal.cli.status_text import describe_trouble

    unwell = settling.in_the_way(view)
    trouble = describe_trouble(view, unwell)
    if not view.observed_generation and not view.agents:
        return f"{trouble}\n\n{NOTHING_RUNS}"
    return f"{trouble}\n\n{_what_goes_on(view, unwell)}"


def _what_goes_on(view: StatusView, unwell: Sequence[AgentView]) -> str:
    """What a fleet does that is not settled, and what to do about it."""
    failed = [agent for agent in unwell if agent.state == "failed"]
    if view.engine_away:
        return "It goes on as soon as that is back: `shoal status -w` shows it."
    if not failed and (unwell or not view.problems):
        return "It goes on, and may settle yet: `shoal status -w` shows it."
    down = ", ".join(agent.name for agent in failed if not agent.ready)
    goes_on = f"Shoal goes on trying to start {down}." if down else "What served before goes on serving."
    return f"{goes_on} Change the file and run `shoal up` again."
