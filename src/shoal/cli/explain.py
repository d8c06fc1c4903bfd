"""`shoal explain`: why an agent has the count that it has, decision by decision."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import emit, format_moment, format_number, format_span, say
from shoal.cli.status import find_agent
from shoal.cli.status_text import describe_bounds, describe_owner
from shoal.cli.whole_numbers import WholeNumber
from shoal.errors import ControllerUnavailable

if TYPE_CHECKING:
    from shoal.api.views import AgentView, DecisionView


@click.command(short_help="Say why an agent has the count that it has.")
@click.argument("agent", shell_complete=complete_agents)
@click.option("-n", "--last", type=WholeNumber(min=1), default=5, show_default=True, help="How many decisions.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def explain(common: Common, agent: str, last: int) -> None:
    """Say why an agent has the count that it has.

    Shows its last decisions, the newest first: what each trigger asked for, what kept the count from it, and when
    the answer could change by itself. While no controller answers, they are those that the last one stored.
    """
    view, decisions = asyncio.run(_ask(common, agent, last))
    if common.output != "text":
        emit({"agent": agent, "decisions": decisions}, common.output)
        return
    click.echo(render_explanation(view, decisions, time.time()))


async def _ask(common: Common, agent: str, last: int) -> tuple[AgentView, tuple[DecisionView, ...]]:
    place = common.place()
    client = place.client()
    try:
        view = find_agent(await client.status(), agent)
        return view, await client.explain(agent, last)
    except ControllerUnavailable:
        found = await place.look()
        if found is None:
            raise
        from shoal.api.present import decision_view

        view = find_agent(found, agent)
        say("no controller answers; this is what it stored", fg="yellow")
        async with place.store() as store:
            return view, tuple(decision_view(each) for each in await store.read_decisions(agent, last))


def render_explanation(agent: AgentView, decisions: tuple[DecisionView, ...], now: float) -> str:
    """The agent's count and bounds, then each decision."""
    if agent.kind == "job":
        return f"{agent.name} is a job, which has no count; `shoal status {agent.name}` shows its runs"
    head = f"{click.style(agent.name, bold=True)}: {agent.desired} desired, {agent.ready} ready"
    lines = [f"{head}, {describe_bounds(agent)}"]
    if agent.pin is not None:
        until = (
            f"until {format_moment(agent.pin_until)}" if agent.pin_until else f"until `shoal scale {agent.name} auto`"
        )
        lines.append(f"pinned to {agent.pin} {until}: the autoscaler waits")
    if agent.owner is not None:
        lines.append(f"count: {describe_owner(agent, now)}")
    if agent.reason and agent.state not in {"ok", "asleep"}:
        lines.append(f"{agent.state}: {agent.reason}")
    if not decisions:
        return "\n".join([*lines, "", "nothing had to be decided yet"])
    for decision in decisions:
        lines += ["", *_render_decision(decision, now)]
    return "\n".join(lines)


def _render_decision(decision: DecisionView, now: float) -> list[str]:
    change = (
        f"{decision.current} -> {decision.count}" if decision.count != decision.current else f"stays {decision.count}"
    )
    lines = [f"{format_moment(decision.at)}  {click.style(change, bold=True)}  {decision.reason}"]
    lines += [f"  {_render_proposal(proposal)}" for proposal in decision.proposals]
    if decision.capped_by:
        lines.append(f"  kept there by {decision.capped_by}")
    if decision.due_at is not None:
        wait = f"in {format_span(decision.due_at - now)}" if decision.due_at > now else "which has passed"
        lines.append(f"  looked at again at {format_moment(decision.due_at)} ({wait}) even if nothing changes")
    return lines


def _render_proposal(proposal: dict[str, Any]) -> str:
    name = f"{proposal.get('trigger', '?'):<14}"
    if proposal.get("count") is None:
        return f"{name} could not say: {proposal.get('error') or 'no samples'}"
    value, target = proposal.get("value"), proposal.get("target")
    measured = ""
    if value is not None:
        measured = f": {format_number(value)}" + (f", target {format_number(target)}" if target is not None else "")
    error = f" ({proposal['error']})" if proposal.get("error") else ""
    return f"{name} asks for {proposal['count']}{measured}{error}"
