"""`shoal plan`: what `up` would change, said before it is done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal.cli.agent_names import complete_agents
from shoal.cli.engine_check import check_engine
from shoal.cli.options import SPEC_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import emit, say
from shoal.errors import EngineError, EngineUnavailable, PlanError

if TYPE_CHECKING:
    from shoal.cli.place import Contents, Place
    from shoal.cli.secret_values import Choices
    from shoal.control.store import SecretRecord, StoredFleet
    from shoal.core.drift import Drift
    from shoal.core.plan import Plan
    from shoal.core.record import AgentRecord
    from shoal.spec.model import Fleet

CHANGES = 2
_SIGN_COLOURS = (
    ("  + ", "green"),
    ("  -/+ ", "red"),
    ("  ~ ", "yellow"),
    ("  - ", "red"),
    ("  ! ", "magenta"),
    ("note: ", "blue"),
)
ADOPT = click.option(
    "--adopt", is_flag=True, help="Take over a fleet of this name that was started from another directory."
)


@dataclass(frozen=True, slots=True)
class Intent:
    """What one command wants to store: the fleet, its secrets, the plan, and the generation and the `known_secrets`
    that it was made on.

    `adopted_from` is the directory from which the fleet was started so far, where that is another one; `nonces` are
    those of restarted agents, `None` as they are; `what` is for the history.
    """

    place: Place
    project: Path
    fleet: Fleet
    secrets: Choices
    plan: Plan
    generation: int
    known_secrets: Mapping[str, SecretRecord]
    adopted_from: str | None = None
    nonces: Mapping[str, str] | None = None
    what: str = "up"


@click.command(short_help="Show what `up` would change.")
@click.argument("agents", metavar="[AGENT]...", nargs=-1, shell_complete=complete_agents)
@click.option("--detailed-exitcode", is_flag=True, help="Exit 0 for no changes, 1 for an error, 2 for changes.")
@ADOPT
@decorate(SPEC_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def plan(common: Common, agents: tuple[str, ...], detailed_exitcode: bool, adopt: bool) -> int:
    """Show what `up` would change, compared with the fleet as it was last stored.

    A change is live (nothing restarts), rolling (new replicas take over from old ones) or recreate (old ones stop
    first). On Kubernetes it also tells what somebody else changed in the cluster since, who and when. Notes say what
    the engine does not enforce.
    """
    intent = asyncio.run(make_intent(common, agents, adopt=adopt))
    if common.output == "text":
        click.echo(colour_plan(intent.plan))
    else:
        emit(_as_plain(intent.plan, intent.generation), common.output)
    return CHANGES if detailed_exitcode and intent.plan else 0


async def make_intent(common: Common, agents: Sequence[str] = (), *, adopt: bool = False) -> Intent:
    """Validate, collect the secrets, read what is stored, and compare.

    Raises PlanError for a fleet that was started from another directory, unless it is to be adopted.
    """
    from shoal.cli.count_owners import describe_owners
    from shoal.cli.kept_queues import count_messages
    from shoal.cli.part_of_fleet import take_agents
    from shoal.cli.secret_sources import Sources
    from shoal.cli.secret_values import choose_secrets
    from shoal.cli.stored_fleet import generation_of, new_nonces, other_directory, read_with_secrets

    loaded = common.load()
    for warning in loaded.warnings:
        say(f"warning: {warning}", fg="yellow")
    check_engine(loaded)  # before secrets are looked for
    project = common.project_directory()
    place = common.place_of(loaded.fleet)
    stored, known = await read_with_secrets(place)
    elsewhere = other_directory(place, stored, project)
    if elsewhere is not None and not adopt:
        raise PlanError(
            f"fleet: {loaded.fleet.fleet} was started from {elsewhere} and runs; this is {project}. Give this one "
            "another name (`fleet:` in the file), end that one there (`shoal down`), or add --adopt if this directory "
            "takes its place"
        )
    old = stored.fleet if stored is not None else None
    fleet = take_agents(old, loaded.fleet, agents) if agents else loaded.fleet
    sources = Sources(loaded, project, os.environ)
    contents = await place.contents()
    secrets = choose_secrets(loaded, fleet, agents, known, contents, sources)
    messages = await count_messages(place.client(), old, fleet)
    async with place.store() as store:
        records = await store.read_records()
    owners = await describe_owners(place.client(), records)
    nonces: Mapping[str, str] = stored.nonces if stored is not None else {}
    drift, unseen = await _find_drift(place, stored, fleet, agents)
    anew = sorted({each.agent for each in drift if each.agent})
    if anew:
        nonces = {**nonces, **new_nonces(anew)}
    made = compare(place, contents, old, fleet, secrets, records, nonces, restarted=anew, messages=messages)
    only = (f"only {', '.join(agents)} may change; the other agents stay as they are stored",) if agents and old else ()
    lacking = _find_lacking(fleet)
    made = replace(made, notes=(*made.notes, *lacking, *only, *secrets.notes, *owners, *unseen), drift=drift)
    what, kept = " ".join(("up", *agents)), nonces if anew else None
    return Intent(place, project, fleet, secrets, made, generation_of(stored), known, elsewhere, kept, what)


def _find_lacking(fleet: Fleet) -> tuple[str, ...]:
    """What agents ask for and this machine has not, where it is this machine that runs them."""
    if fleet.engine != "local":
        return ()
    from shoal.cli.local.capacity import describe_lacking

    return tuple(describe_lacking(fleet))


async def _find_drift(
    place: Place, stored: StoredFleet | None, fleet: Fleet, agents: Sequence[str]
) -> tuple[tuple[Drift, ...], tuple[str, ...]]:
    """What somebody else changed of what may change now, and a note where that can't be seen."""
    if stored is None or stored.fleet is None:
        return (), ()
    try:
        drift = await place.drift(stored)
    except EngineUnavailable:
        raise
    except EngineError as error:
        return (), (f"what somebody else changed in the cluster is not known: {error}",)
    stays = stored.fleet.agents.keys() - (set(agents) or fleet.agents.keys())
    return tuple(each for each in drift if each.agent not in stays), ()


def compare(
    place: Place,
    contents: Contents,
    old: Fleet | None,
    fleet: Fleet,
    secrets: Choices,
    records: Mapping[str, AgentRecord],
    nonces: Mapping[str, str],
    *,
    restarted: Sequence[str] = (),
    messages: Mapping[str, int] | None = None,
) -> Plan:
    """The plan from the stored fleet to another, with its secrets and the nonces of restarted agents. `records` are
    what the controller noted."""
    from shoal.cli.secret_values import digests_of, mask_for
    from shoal.core.plan import make_plan
    from shoal.core.returning import find_returning

    returning = find_returning(fleet, digests_of(contents, secrets), nonces, records) if records else ()
    return make_plan(
        old,
        fleet,
        place.capabilities,
        secrets.changed,
        restarted,
        messages,
        returning,
        mask_for(contents, secrets),
    )


def colour_plan(made: Plan) -> str:
    """The plan as text, its signs in colour."""
    from shoal.core.plan_text import format_plan

    lines: list[str] = []
    for line in format_plan(made).splitlines():
        colour = next((colour for sign, colour in _SIGN_COLOURS if line.startswith(sign)), None)
        lines.append(click.style(line, fg=colour) if colour else line)
    return "\n".join(lines)


def _as_plain(made: Plan, generation: int) -> dict[str, Any]:
    return {
        "fleet": made.fleet,
        "engine": made.engine,
        "generation": generation,
        "changes": [
            {
                "agent": change.agent,
                "kind": change.kind,
                "class": change.class_,
                "fields": [{"path": path, "old": old, "new": new} for path, old, new in change.fields],
            }
            for change in made.changes
        ],
        "drift": [asdict(each) for each in made.drift],
        "notes": list(made.notes),
    }
