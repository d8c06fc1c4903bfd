"""`shoal secret`: give secrets a value, see which there are, take them away. A value goes in, and never comes out."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import Cell, Column, emit, format_span, render_table, say
from shoal.cli.own_fleet import require_own_fleet
from shoal.cli.since import WAIT_TIMEOUT
from shoal.errors import ControllerUnavailable, NotFound, PlanError, ShoalError

if TYPE_CHECKING:
    from shoal.cli.plan import Intent
    from shoal.control.store import SecretRecord, StoredFleet
    from shoal.spec.model import Fleet

_COLUMNS = (Column("SECRET"), Column("AGENTS"), Column("SET"), Column("BY"), Column("FROM"))


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One secret as `list` shows it: who has it, when (epoch seconds) and by whom it got its value, and from where."""

    name: str
    agents: list[str]
    at: float | None
    by: str | None
    source: str


@click.group(short_help="Give secrets a value, list them, take them away.")
def secret() -> None:
    """Give secrets a value, list them, take them away.

    Values are never shown: not here, nor by any other command.
    """


@secret.command("set", short_help="Give a secret a value, and restart the agents that have it.")
@click.argument("name")
@click.option(
    "--from-file",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Take the value from this file, byte by byte; - is standard input.",
)
@click.option("-d", "--detach", is_flag=True, help="Return once it is stored, and don't wait for the replicas.")
@WAIT_TIMEOUT
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def set_(common: Common, name: str, from_file: str | None, detach: bool, wait_timeout: float) -> int:
    """Give a secret a value, and restart the agents that have it, one after the other as by `shoal up`.

    The value is asked for without being shown, read from standard input where that is no terminal, or taken from a
    file; the last newline is part of it then. The file of the fleet need not be changed: the value stands until the
    source that the file names for it changes.
    """
    require_own_fleet(common)
    content = _read_value(name, from_file)
    intent = asyncio.run(_rotate(common, name, content))
    if intent is None:
        return 0
    from shoal.cli.plan import colour_plan

    if common.output == "text":
        click.echo(colour_plan(intent.plan), err=True)
    return asyncio.run(_carry_out(common, intent, detach, wait_timeout))


@secret.command("list", short_help="Show which secrets there are.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def list_(common: Common) -> None:
    """Show which secrets there are: the agents that have each, when it got its value, and from whom. Never a value."""
    rows = asyncio.run(_rows(common))
    if common.output != "text":
        emit(rows, common.output)
        return
    if not rows:
        say(f"{common.fleet_name()} has no secrets")
        return
    now = time.time()
    cells = [
        [
            row.name,
            ", ".join(row.agents) or Cell("nobody", "yellow"),
            f"{format_span(max(0.0, now - row.at))} ago" if row.at is not None else Cell("never", "red"),
            (row.by or "-").partition(" (")[0],
            row.source,
        ]
        for row in rows
    ]
    click.echo(render_table(_COLUMNS, cells))


@secret.command("rm", short_help="Forget a secret that no agent has.")
@click.argument("name")
@decorate(FLEET_OPTIONS)
@pass_common
def remove(common: Common, name: str) -> None:
    """Forget a secret that no agent has any more."""
    require_own_fleet(common)
    asyncio.run(_remove(common, name))
    click.echo(f"{name}: forgotten")


def _read_value(name: str, file: str | None) -> bytes:
    from shoal.cli.secret_sources import LARGEST_BYTES, read_limited

    if file is not None and file != "-":
        try:
            return read_limited(Path(file))
        except OSError as error:
            raise ShoalError(f"{file} can't be read: {error.strerror or error}") from error
    if file is None and sys.stdin.isatty():
        return click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True).encode()
    return sys.stdin.buffer.read(LARGEST_BYTES + 1)


async def _rotate(common: Common, name: str, content: bytes) -> Intent | None:
    """What a new value changes; `None` where that was nothing, and it is stored already."""
    from shoal.cli.plan import Intent, compare
    from shoal.cli.secret_values import Choice, Choices, store_choices
    from shoal.cli.stored_fleet import (
        generation_of,
        read_with_secrets,
        who_am_i,
        write_secrets,
    )

    place = common.place()
    stored, records = await read_with_secrets(place)
    fleet = stored.fleet if stored is not None else None
    _check(name, content, fleet)
    contents = await place.contents(make=True)
    before = records.get(name)
    same = before is not None and contents.has(name, before.digest) and contents.digest(content) == before.digest
    choices = {each: Choice(kept=record) for each, record in records.items()}
    choices[name] = Choice(content, kept=before, by_hand=True)
    changed = Choices(choices, frozenset() if same else frozenset((name,)))
    users = _users(fleet, name)
    if same or fleet is None or stored is None or not users:
        given = await store_choices(contents, changed, who_am_i())
        await write_secrets(place, given, generation_of(stored), records)
        where = "it has this value already, so nothing restarts" if same else "stored; no agent has it yet"
        click.echo(f"{name}: {where}")
        return None
    async with place.store() as store:
        noted = await store.read_records()
    made = compare(place, contents, fleet, fleet, changed, noted, stored.nonces)
    return Intent(place, Path(stored.directory), fleet, changed, made, stored.generation, records)


def _check(name: str, content: bytes, fleet: Fleet | None) -> None:
    """Raises PlanError for what can be no secret."""
    from shoal.cli.secret_sources import refuse_content
    from shoal.spec.agent_checks import SECRET, SECRET_RULE

    if not SECRET.fullmatch(name):
        raise PlanError(f"{name!r} can't be the name of a secret; {SECRET_RULE}")
    uses = [each for agent in fleet.agents.values() for each in agent.secrets] if fleet is not None else []
    as_variable = any(each.name == name and each.as_ == "env" for each in uses)
    wrong = refuse_content(content, as_variable=as_variable)
    if wrong is not None:
        raise PlanError(f"{name}: {wrong.why} ({wrong.remedy})")
    if content.endswith(b"\n") and content.count(b"\n") == 1:
        say(f"note: {name} ends with a newline, which is part of it (printf '%s' instead of echo leaves it out)")


async def _carry_out(common: Common, intent: Intent, detach: bool, timeout_s: float) -> int:
    from shoal.cli.up import begin, up_detached

    agents = tuple(change.agent for change in intent.plan.changes if change.agent is not None)
    if not detach:
        return await up_detached(common, intent, agents, timeout_s)
    await begin(intent, agents)
    click.echo("stored; `shoal status -w` shows how it is taken up")
    return 0


async def _rows(common: Common) -> list[SecretRow]:
    from shoal.cli.stored_fleet import read_with_secrets

    stored, records = await read_with_secrets(common.place())
    names = {*records, *_needed(stored)}
    return [_row(name, records.get(name), stored) for name in sorted(names)]


def _row(name: str, record: SecretRecord | None, stored: StoredFleet | None) -> SecretRow:
    fleet = stored.fleet if stored is not None else None
    return SecretRow(
        name=name,
        agents=_users(fleet, name),
        at=record.at if record is not None else None,
        by=record.by if record is not None else None,
        source="secret set" if record is not None and record.by_hand else _source(fleet, name),
    )


def _source(fleet: Fleet | None, name: str) -> str:
    source = fleet.secrets.get(name) if fleet is not None else None
    if source is None:
        return f"variable {name}"
    if source.command is not None:
        return f"command {source.command[0]}"
    return f"file {source.file}" if source.file is not None else f"variable {source.environment}"


def _needed(stored: StoredFleet | None) -> set[str]:
    if stored is None or stored.fleet is None:
        return set()
    return {each.name for agent in stored.fleet.agents.values() for each in agent.secrets}


def _users(fleet: Fleet | None, name: str) -> list[str]:
    if fleet is None:
        return []
    return sorted(agent for agent, spec in fleet.agents.items() if any(each.name == name for each in spec.secrets))


async def _remove(common: Common, name: str) -> None:
    from shoal.cli.stored_fleet import generation_of, read_with_secrets, write_secrets

    place = common.place()
    stored, records = await read_with_secrets(place)
    users = _users(stored.fleet if stored is not None else None, name)
    if users:
        raise PlanError(
            f"the secret {name} is used by {', '.join(users)}; take it out of their `secrets` and run `shoal up` "
            f"first, or give it another value by `shoal secret set {name}`"
        )
    if name not in records:
        raise NotFound(f"no secret {name!r} in {common.fleet_name()}; there are: {', '.join(records) or 'none'}")
    kept = {each: record for each, record in records.items() if each != name}
    await write_secrets(place, kept, generation_of(stored), records)
    contents = await place.contents()
    if stored is None or stored.fleet is None:
        await contents.prune({record.digest for record in kept.values()})
        return
    await contents.release(name, records[name].digest)
    with contextlib.suppress(ControllerUnavailable):  # the next one does it
        await place.client().apply()
