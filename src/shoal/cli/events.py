"""`shoal events`: what happened, the oldest first."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from shoal.cli.options import FOLLOW_FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import NONE, agent_colour, emit_line, format_moment, say
from shoal.cli.since import Since
from shoal.errors import ControllerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shoal.api.views import EventView

_ALARMING = ("crash", "fail", "refus", "error", "unhealthy", "backoff", "problem")
_KIND_WIDTH = len("rollout-complete")


@click.command(short_help="Show what happened.")
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes.")
@click.option("--since", type=Since(), help="From then on: 10m, or 2025-06-15T02:00.")
@decorate(FOLLOW_FLEET_OPTIONS)
@output_option("text", "json")
@pass_common
def events(common: Common, follow: bool, since: float | None) -> None:
    """Show what happened: replicas that got ready or ended, changes of count, runs of jobs.

    While no controller answers, they are those that the last one wrote down. `-o json` gives an object a line.
    """
    asyncio.run(_print(_events(common, since, follow), common.output))


async def _events(common: Common, since: float | None, follow: bool) -> AsyncGenerator[EventView]:
    """From the controller or, while it is away, from the file that it keeps."""
    place = common.place()
    try:
        async with aclosing(place.client().events(since, follow=follow)) as stream:
            async for event in stream:
                yield event
    except ControllerUnavailable:
        known = None if follow else place.events()
        if known is None:
            raise
        say("no controller answers; this is what it wrote down", fg="yellow")
        for event in known:
            if since is None or event.at >= since:
                yield event


async def _print(events: AsyncGenerator[EventView], form: str) -> None:
    async with aclosing(events) as stream:
        async for event in stream:
            if form == "json":
                emit_line(event)
            else:
                click.echo(render_event(event))


def render_event(event: EventView) -> str:
    """When, which agent, what kind, and the message, in columns as wide as the longest kind."""
    agent = f"{event.agent or NONE:<16}"
    kind = f"{event.kind:<{_KIND_WIDTH}}"
    alarming = any(word in event.kind for word in _ALARMING)
    return " ".join([
        format_moment(event.at),
        click.style(agent, fg=agent_colour(event.agent)) if event.agent else agent,
        click.style(kind, fg="red") if alarming else kind,
        event.message,
    ])  # fmt: skip
