"""`shoal restart`: the same version anew, as a rollout: nothing of it is down meanwhile."""

from __future__ import annotations

import asyncio

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.own_fleet import require_own_fleet
from shoal.cli.since import WAIT_TIMEOUT


@click.command(short_help="Replace an agent's replicas by new ones of the same version.")
@click.argument("agents", metavar="AGENT...", nargs=-1, required=True, shell_complete=complete_agents)
@WAIT_TIMEOUT
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def restart(common: Common, agents: tuple[str, ...], wait_timeout: float, yes: bool) -> int:
    """Replace the replicas of agents by new ones of the same version.

    It goes as a change of the file would: new replicas take over before old ones leave, and those of stateful agents
    follow each other. What the file says that was not yet brought up stays out of it.
    """
    from shoal.cli.stored_change import carry_out, read_past, restart_intent

    require_own_fleet(common)
    past = asyncio.run(read_past(common.place()))
    intent = restart_intent(past, list(dict.fromkeys(agents)))
    return carry_out(common, intent, agents, wait_timeout, yes=yes)
