"""`shoal logs`: what the agents write, each agent in a colour of its own."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.options import FOLLOW_FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import agent_colour, emit_line
from shoal.cli.since import Since

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.api.views import LogView


@click.command(short_help="Show what the agents write.")
@click.argument("agents", metavar="[AGENT]...", nargs=-1, shell_complete=complete_agents)
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes.")
@click.option("--since", type=Since(), help="From then on: 10m, or 2025-06-15T02:00.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="N", help="The last N lines of each replica; without this and --since, 1000."
)
@decorate(FOLLOW_FLEET_OPTIONS)
@output_option("text", "json")
@pass_common
def logs(common: Common, agents: tuple[str, ...], follow: bool, since: float | None, tail: int | None) -> None:
    """Show what the agents write: all of them, or those named.

    A line names its replica, in a colour that stays the agent's. `-o json` gives an object a line.
    """
    asyncio.run(_print(common.client(), agents, follow, since, tail, common.output))


async def _print(
    client: Client, agents: tuple[str, ...], follow: bool, since: float | None, tail: int | None, form: str
) -> None:
    width = 0
    async with aclosing(client.logs(agents, follow=follow, since=since, tail=tail)) as lines:
        async for line in lines:
            if form == "json":
                emit_line(line)
                continue
            width = max(width, len(line.replica))
            click.echo(render_log(line, width))


def render_log(line: LogView, width: int = 0) -> str:
    """The replica in its agent's colour, a bar that differs for stderr, the text as it is."""
    bar = "!" if line.stream == "stderr" else "|"
    return f"{click.style(f'{line.replica:<{width}} {bar}', fg=agent_colour(line.agent))} {line.text}"
