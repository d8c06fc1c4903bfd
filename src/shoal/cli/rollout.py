"""`shoal rollout`: how far a change is, which there were before, and the way back."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.losses import ALLOW_DELETE
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import NONE, Cell, Column, emit, format_ago, render_table, terminal_width
from shoal.cli.own_fleet import require_own_fleet
from shoal.cli.since import WAIT_TIMEOUT
from shoal.cli.whole_numbers import WholeNumber
from shoal.errors import ControllerUnavailable, ShoalError, no_such_agent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.api.views import AgentView, StatusView
    from shoal.cli.stored_change import Past
    from shoal.control.history import StoredGeneration, StoredRevision

FAILED = 1
_AGENTS = (
    Column("GENERATION", right=True),
    Column("REVISION"),
    Column("STORED", right=True),
    Column("WHAT"),
    Column("BY"),
    Column("CHANGED"),
)
_FLEET = (Column("GENERATION", right=True), Column("STORED", right=True), Column("WHAT"), Column("BY"))
_AGENT = click.argument("agent", required=False, shell_complete=complete_agents)


@click.group(short_help="Watch a change, look at those before it, undo it.")
def rollout() -> None:
    """Watch a change, look at those before it, undo it.

    A new version takes over replica by replica, as `update` says in the file. One that makes no progress for
    `progress_deadline` is given up, and the version before serves alone again.
    """


@rollout.command(short_help="Wait for a rollout, and tell what came of it.")
@_AGENT
@click.option("--no-wait", is_flag=True, help="Tell how far it is, and don't wait.")
@WAIT_TIMEOUT
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def status(common: Common, agent: str | None, no_wait: bool, wait_timeout: float) -> int:
    """Wait until the rollouts of the fleet, or of AGENT, are done, and tell what came of them.

    The exit code is 0 when they are complete, with --no-wait also while they go on, and 1 when one has failed.
    """
    view, trouble = asyncio.run(_status(common, agent, None if no_wait else wait_timeout))
    found = [each for each in view.agents if each.rollout is not None and agent in (None, each.name)]
    if common.output != "text":
        emit([{"agent": each.name, **_plain(each)} for each in found], common.output)
    for each in found if common.output == "text" else ():
        click.echo(_line(each, view.at))
    if trouble is not None:
        raise trouble
    return FAILED if any(each.rollout is not None and each.rollout.phase == "failed" for each in found) else 0


@rollout.command(short_help="List the versions that one can come back to.")
@_AGENT
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def history(common: Common, agent: str | None) -> None:
    """List the last ten revisions of AGENT, or the last ten generations of the fleet, the newest first.

    `shoal rollout undo` takes their generation with --to.
    """
    from shoal.cli.stored_change import read_past

    past = asyncio.run(read_past(common.place()))
    if agent is None:
        _show_generations(common, past.history.generations, past.stored.generation)
        return
    if agent not in past.fleet.agents:
        raise no_such_agent(agent, past.fleet.agents)
    _show_revisions(common, past, agent)


@rollout.command(short_help="Bring an earlier version back.")
@_AGENT
@click.option("--to", type=WholeNumber(min=1), metavar="GENERATION", help="Which one; by default the last that served.")
@WAIT_TIMEOUT
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@ALLOW_DELETE
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def undo(common: Common, agent: str | None, to: int | None, wait_timeout: float, yes: bool, allow_delete: bool) -> int:
    """Bring an earlier version of AGENT back, or the fleet as it was in an earlier generation.

    Without --to it is the last one that served; one that was given up never did. Shows the plan, stores it as a new
    generation and waits until it is carried out. Of one agent only what makes new replicas is taken back; its scale and
    its routes stay. The contents that its secrets had then come back too. The file is not changed: the next `shoal up`
    brings what it says.
    """
    from shoal.cli.stored_change import carry_out, read_past, undo_agent_intent, undo_fleet_intent

    require_own_fleet(common)
    past = asyncio.run(read_past(common.place()))
    intent = undo_fleet_intent(past, to) if agent is None else undo_agent_intent(past, agent, to)
    return carry_out(
        common, intent, [agent] if agent is not None else [], wait_timeout, yes=yes, allow_delete=allow_delete
    )


async def _status(common: Common, agent: str | None, timeout_s: float | None) -> tuple[StatusView, ShoalError | None]:
    """How far it is in the end, and what kept it from getting there."""
    from shoal.cli.settling import Settling
    from shoal.cli.up import wait_settled

    place = common.place()
    client = place.client()
    view = await client.status()
    if agent is not None and all(each.name != agent for each in view.agents):
        raise no_such_agent(agent, (each.name for each in view.agents))
    if timeout_s is None:
        return view, None
    settling = Settling(view.generation, (agent,) if agent is not None else ())
    try:
        return await wait_settled(place, settling, timeout_s), None
    except ControllerUnavailable:
        raise
    except ShoalError as trouble:
        return await client.status(), trouble


def _line(agent: AgentView, now: float) -> str:
    from shoal.cli.status_text import describe_rollout

    assert agent.rollout is not None
    return f"{click.style(agent.name, bold=True)}: {describe_rollout(agent.rollout, now)}"


def _plain(agent: AgentView) -> dict[str, Any]:
    from shoal.cli.output import as_plain

    return as_plain(agent.rollout)


def _show_revisions(common: Common, past: Past, agent: str) -> None:
    from shoal.cli.stored_change import current_revision

    wished = current_revision(past.stored, agent)
    revisions = past.history.revisions.get(agent, ())
    if common.output != "text":
        emit([{**_facts(each), "revision": each.revision, "wished": each.revision == wished,
               "served": past.served(agent, each.revision), "changes": list(each.changes)}
              for each in revisions], common.output)  # fmt: skip
        return
    now = time.time()
    rows: list[list[Cell | str]] = [
        [
            f"{each.generation}",
            Cell(each.revision, "green" if each.revision == wished else None),
            format_ago(each.at, now),
            f"{each.what or NONE}{_standing(each.revision == wished, past.served(agent, each.revision))}",
            each.by.partition(" ")[0],
            ", ".join(each.changes) or NONE,
        ]
        for each in revisions
    ]
    click.echo(render_table(_AGENTS, rows, terminal_width()))


def _standing(wished: bool, served: bool | None) -> str:
    said = [*(["now"] if wished else []), *(["never served"] if served is False else [])]
    return f" ({', '.join(said)})" if said else ""


def _show_generations(common: Common, generations: Sequence[StoredGeneration], current: int) -> None:
    if common.output != "text":
        emit([{**_facts(each), "wished": each.generation == current} for each in generations], common.output)
        return
    now = time.time()
    rows: list[list[Cell | str]] = [
        [
            f"{each.generation}",
            format_ago(each.at, now),
            f"{each.what or NONE}{' (now)' if each.generation == current else ''}",
            each.by.partition(" ")[0],
        ]
        for each in generations
    ]
    click.echo(render_table(_FLEET, rows, terminal_width()))


def _facts(stored: StoredRevision | StoredGeneration) -> dict[str, Any]:
    return {"generation": stored.generation, "at": stored.at, "by": stored.by, "what": stored.what}
