"""`shoal logs`: what the agents write, each agent in a colour of its own."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.options import FOLLOW_FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import agent_colour, emit_line, say
from shoal.cli.since import Since
from shoal.cli.whole_numbers import WholeNumber
from shoal.errors import ControllerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shoal.api.views import LogView

_NULS = re.compile("\0+")  # of a writer that went on at its own place in a file that was emptied: maybe millions


@click.command(short_help="Show what the agents write.")
@click.argument("agents", metavar="[AGENT]...", nargs=-1, shell_complete=complete_agents)
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes.")
@click.option("--since", type=Since(), help="From then on: 10m, or 2025-06-15T02:00.")
@click.option(
    "--tail",
    type=WholeNumber(min=0),
    metavar="N",
    help="The last N lines of each replica; without this and --since, 1000.",
)
@decorate(FOLLOW_FLEET_OPTIONS)
@output_option("text", "json")
@pass_common
def logs(common: Common, agents: tuple[str, ...], follow: bool, since: float | None, tail: int | None) -> None:
    """Show what the agents write: all of them, or those named.

    A line names its replica, in a colour that stays the agent's. `-o json` gives an object a line.
    """
    asyncio.run(_print(_lines(common, agents, follow, since, tail), common.output))


async def _lines(
    common: Common, agents: tuple[str, ...], follow: bool, since: float | None, tail: int | None
) -> AsyncGenerator[LogView]:
    """From the controller or, while it is away, from the files that the replicas write themselves."""
    place = common.place()
    try:
        async with aclosing(place.client().logs(agents, follow=follow, since=since, tail=tail)) as lines:
            async for line in lines:
                yield line
    except ControllerUnavailable:
        known = None if follow else place.logs(agents, since, tail)
        if known is None:
            raise
        say("no controller answers; this is what is kept without it", fg="yellow")
        async with aclosing(known) as lines:
            async for line in lines:
                yield line


async def _print(stream: AsyncGenerator[LogView], form: str) -> None:
    width = 0
    async with aclosing(stream) as lines:
        async for line in lines:
            if form == "json":
                emit_line(line)
                continue
            width = max(width, len(line.replica))
            click.echo(render_log(line, width))


def render_log(line: LogView, width: int = 0) -> str:
    """The replica in its agent's colour, a bar that differs for stderr, the text as it is, save for NUL bytes."""
    bar = "!" if line.stream == "stderr" else "|"
    text = _NULS.sub(lambda _: "\\0", line.text)
    return f"{click.style(f'{line.replica:<{width}} {bar}', fg=agent_colour(line.agent))} {text}"
