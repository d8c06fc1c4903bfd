"""`shoal status`: each agent's desired, ready and starting replicas apart, with the reason; unhealthy ones first."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import emit, emit_line, say, terminal_width
from shoal.errors import ControllerUnavailable, no_such_agent

if TYPE_CHECKING:
    from shoal.api.views import AgentView, StatusView
    from shoal.cli.place import Place


@click.command(short_help="Show each agent's state, unhealthy ones first.")
@click.argument("agent", required=False, shell_complete=complete_agents)
@click.option("-w", "--watch", "stay", is_flag=True, help="Stay, and show what changes.")
@decorate(FLEET_OPTIONS)
@output_option()
@pass_common
def status(common: Common, agent: str | None, stay: bool) -> None:
    """Show each agent's state, unhealthy ones first.

    Desired, ready and starting replicas are counted apart. With AGENT, show its replicas and its last decision too.
    `-o wide` adds CPU, memory, requests a second, p95, queue depth and restarts.
    """
    place = common.place()
    try:
        if stay:
            asyncio.run(_watch(place, agent, common.output))
            return
        view = asyncio.run(place.client().status())
    except ControllerUnavailable as error:
        elsewhere = common.name_environments()
        if stay and not elsewhere:
            raise
        found = asyncio.run(place.look())
        if found is None:
            raise ControllerUnavailable(f"{error}{elsewhere}") from error
        if stay:
            raise
        view = found
    _show(view, agent, common.output)
    if not view.agents and not view.controller_pid and (elsewhere := common.name_environments()):
        say(f"Nothing runs here{elsewhere}")


def _show(view: StatusView, agent: str | None, form: str) -> None:
    from shoal.cli.status_text import render_agent, render_status

    if form in {"json", "yaml"}:
        emit(find_agent(view, agent) if agent else view, form)
        return
    width = terminal_width()
    if agent:
        click.echo(render_agent(find_agent(view, agent), view.at, width))
    else:
        click.echo(render_status(view, width, wide=form == "wide"))


async def _watch(place: Place, agent: str | None, form: str) -> None:
    from shoal.cli.live import LiveText
    from shoal.cli.status_text import describe_changes, render_agent, render_status
    from shoal.cli.watching import watch

    async with aclosing(watch(place)) as views:
        if form in {"json", "yaml"}:
            async for view in views:
                emit_line(find_agent(view, agent) if agent else view)
            return
        if not sys.stdout.isatty():
            previous: StatusView | None = None
            async for view in views:
                for line in describe_changes(previous, view, agent):
                    click.echo(line)
                previous = view
            return
        with LiveText(sys.stdout) as live:
            async for view in views:
                width = terminal_width()
                live.show(
                    render_agent(find_agent(view, agent), view.at, width)
                    if agent
                    else render_status(view, width, wide=form == "wide")
                )
        say("the controller ended the stream")


def find_agent(view: StatusView, name: str) -> AgentView:
    """The agent of that name. Raises NotFound with the nearest one."""
    for agent in view.agents:
        if agent.name == name:
            return agent
    raise no_such_agent(name, (agent.name for agent in view.agents))
