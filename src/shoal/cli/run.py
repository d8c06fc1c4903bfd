"""`shoal run`: a run of a job now, beside its schedule."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import emit, format_span, say
from shoal.cli.own_fleet import require_own_fleet
from shoal.cli.watching import watch
from shoal.errors import ControllerUnavailable

if TYPE_CHECKING:
    from shoal.api.views import RunView
    from shoal.cli.place import Place

_ENDED = {"succeeded", "failed"}


@click.command(short_help="Run a job now.")
@click.argument("job", shell_complete=complete_agents)
@click.option("--wait", is_flag=True, help="Stay until it ended; exit 1 if it failed.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def run(common: Common, job: str, wait: bool) -> int:
    """Run a job now, beside its schedule."""
    require_own_fleet(common)
    return asyncio.run(_run(common.place(), job, wait, common.output))


async def _run(place: Place, job: str, wait: bool, form: str) -> int:
    run_id = await place.client().run(job)
    if not wait:
        if form == "text":
            click.echo(run_id)
        else:
            emit({"run_id": run_id}, form)
        return 0
    say(f"{run_id} is on its way; Ctrl-C leaves it going")
    ended = await _wait_ended(place, job, run_id)
    if form == "text":
        click.echo(describe_end(ended))
    else:
        emit(ended, form)
    return 0 if ended.phase == "succeeded" else 1


async def _wait_ended(place: Place, job: str, run_id: str) -> RunView:
    phase = ""
    async with aclosing(watch(place)) as views:
        async for view in views:
            for run in (run for agent in view.agents if agent.name == job for run in agent.runs):
                if run.run_id != run_id:
                    continue
                if run.phase in _ENDED:
                    return run
                if run.phase != phase:
                    say(f"{run_id}: {run.phase}" + (f": {run.reason}" if run.reason else ""))
                    phase = run.phase
    raise ControllerUnavailable(f"the controller ended before {run_id} did; `shoal up` starts it again")


def describe_end(run: RunView) -> str:
    """How a run ended, in a line."""
    took = ""
    if run.started_at is not None and run.finished_at is not None:
        took = f" after {format_span(run.finished_at - run.started_at)}"
    attempts = f", attempt {run.attempt}" if run.attempt > 1 else ""
    exit_code = f", exit code {run.exit_code}" if run.exit_code and "exit code" not in run.reason else ""
    return f"{run.run_id}: {run.phase}{took}{attempts}{exit_code}" + (f": {run.reason}" if run.reason else "")
