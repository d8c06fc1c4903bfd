"""`shoal scale`: a person's count goes before the autoscaler's, for a time or until it is released."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import emit
from shoal.cli.own_fleet import require_own_fleet
from shoal.cli.since import Span
from shoal.cli.status_text import describe_bounds
from shoal.units import format_duration

if TYPE_CHECKING:
    from shoal.api.views import AgentView


_MOST = 10**6


class _Count(click.ParamType[int | None]):
    name = "COUNT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        text = str(value)
        if text == "auto":
            return None
        if not text.isdecimal():
            self.fail(f"{text!r} is no count; expected a number of replicas, or `auto` to release it", param, ctx)
        if len(text) > len(f"{_MOST}") or int(text) > _MOST:
            self.fail(f"{text!r} is too many; expected at most {_MOST}, as in the file", param, ctx)
        return int(text)


@click.command(short_help="Pin an agent's count, or release it.")
@click.argument("agent", shell_complete=complete_agents)
@click.argument("count", metavar="N|auto", type=_Count())
@click.option("--for", "for_s", type=Span(), help="Release it by itself after this time, such as 1h.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def scale(common: Common, agent: str, count: int | None, for_s: float | None) -> None:
    """Pin an agent to N replicas, or give it back to the autoscaler with `auto`.

    A pin holds over `shoal up`, over a restart of the controller and over `shoal down` without --volumes, until AGENT
    leaves the file; `shoal status` shows it. On Kubernetes both also take the count back from who set it there, such as
    by `kubectl scale`.
    """
    if count is None and for_s is not None:
        raise click.UsageError("--for says how long a pin holds; `auto` releases it now")
    require_own_fleet(common)
    view = asyncio.run(common.client().scale(agent, count, for_s))
    if common.output != "text":
        emit(view, common.output)
    elif count is None:
        click.echo(f"{agent}: released, {describe_bounds(view)} again")
    else:
        how_long = f"for {format_duration(for_s)}" if for_s is not None else f"until `shoal scale {agent} auto`"
        click.echo(f"{agent}: pinned to {count} {how_long} ({view.ready} ready now){_describe_bound(view, count)}")


def _describe_bound(view: AgentView, count: int) -> str:
    """That the count is one which the autoscaler would not choose."""
    if count > view.max:
        return f"; that is above its max of {view.max}, which does not hold for a pin"
    if count < view.min:
        return f"; that is below its min of {view.min}, which does not hold for a pin"
    return ""
