"""`shoal context`: how fleets elsewhere are reached from here, and how a teammate gets to reach them too."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click

from shoal.cli.contexts import (
    FleetContext,
    known_contexts,
    load_context,
    parse_context,
    remote_client,
    remove_context,
    render_context,
    require_context,
    save_context,
    write_private,
)
from shoal.cli.options import Common, output_option, pass_common
from shoal.cli.output import Cell, Column, emit, format_span, render_table, say, terminal_width
from shoal.cli.since import Span
from shoal.errors import IdentityError, ShoalError

_COLUMNS = (Column("FLEET"), Column("ENGINE"), Column("YOU ARE"), Column("EXPIRES"), Column("ADDRESSES"))


@dataclass(frozen=True, slots=True)
class ContextRow:
    """One context as `list` shows it: who one is there, and until when (epoch seconds) without using it."""

    fleet: str
    engine: str
    docker_context: str | None
    addresses: tuple[str, ...]
    name: str
    expires_at: float


@click.group(short_help="Reach fleets elsewhere, and let a teammate reach them.")
def context() -> None:
    """Reach fleets elsewhere, and let a teammate reach them.

    The first `shoal up` on another engine stores how its fleet is reached: addresses, and a certificate for you. It is
    renewed by whatever you ask the fleet before it expires.
    """


@context.command("list", short_help="Show which fleets can be reached.")
@output_option("text", "json", "yaml")
@pass_common
def list_(common: Common) -> None:
    """Show which fleets can be reached from here, as whom and until when."""
    loaded = [load_context(os.environ, fleet) for fleet in known_contexts(os.environ)]
    rows = [_row(each) for each in loaded if each is not None]
    if common.output != "text":
        emit(rows, common.output)
    elif not rows:
        say("there is no context; `shoal up` makes one for a fleet on another engine, `shoal context import` takes one")
    else:
        click.echo(render_table(_COLUMNS, [_cells(row) for row in rows], terminal_width()))


@context.command(short_help="Write a file by which a teammate reaches the fleet.")
@click.argument("fleet")
@click.option("--name", required=True, metavar="NAME", help="The teammate, as the fleet's events will call him.")
@click.option(
    "--life",
    type=Span(),
    default="30d",
    show_default=True,
    help="How long it is good for without being used; use renews it.",
)
@click.option(
    "--to", type=click.Path(dir_okay=False), metavar="FILE", help="The file. Default: FLEET-NAME.context, here."
)
def export(fleet: str, name: str, life: float, to: str | None) -> None:
    """Write a file by which a teammate reaches the fleet, with a certificate of his own.

    It holds a private key: give it as you would give a password, and delete it then. He takes it by `shoal context
    import FILE`, and may do all that you may.
    """
    path = Path(to or f"{fleet}-{name}.context")
    if path.exists():
        raise ShoalError(f"{path} is there already; remove it, or name another file by --to")
    given = asyncio.run(_issue(require_context(os.environ, fleet), name, life))
    try:
        write_private(path, render_context(given))
    except OSError as error:
        raise ShoalError(f"{path} can't be written: {error.strerror or error}") from error
    say(f"{path}: as private as a password; {name} takes it by `shoal context import {path.name}`")


@context.command("import", short_help="Take the file that a teammate exported for you.")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
def import_(file: str) -> None:
    """Take the file that a teammate exported for you; - is standard input."""
    try:
        with click.open_file(file, encoding="utf-8") as opened:
            given = parse_context(opened.read(), file)
    except (OSError, UnicodeDecodeError) as error:
        raise ShoalError(f"{file} can't be read: {error}") from error
    row = _row(given)
    if row.expires_at <= time.time():
        raise ShoalError(f"{file}: its certificate has expired; let {given.fleet} be exported for you once more")
    before = load_context(os.environ, given.fleet)
    if before is not None and _authority(before) != _authority(given):
        raise ShoalError(
            f"there is a context for another fleet of the name {given.fleet}; "
            f"`shoal context remove {given.fleet}` forgets it"
        )
    save_context(os.environ, given)
    say(f"{given.fleet}: you are {row.name}; `shoal status --fleet {given.fleet}` looks at it")


@context.command(short_help="Forget how a fleet is reached.")
@click.argument("fleet")
def remove(fleet: str) -> None:
    """Forget how a fleet is reached. The fleet goes on; who has another copy of the key can use it until it expires."""
    remove_context(os.environ, fleet)
    say(f"{fleet}: forgotten")


async def _issue(own: FleetContext, name: str, life_s: float) -> FleetContext:
    from shoal.pki import Identity, create_key, create_request

    key_pem = create_key()
    certificate_pem = await remote_client(os.environ, own).issue_certificate(name, create_request(key_pem), life_s)
    return replace(own, identity=Identity.of(key_pem, certificate_pem, _authority(own)).pem)


def _authority(context: FleetContext) -> str:
    from shoal.pki import Identity

    return Identity.parse(context.identity).authority_pem.strip()


def _row(context: FleetContext) -> ContextRow:
    from shoal.pki import Identity

    peer = Identity.parse(context.identity).peer
    if (peer.role, peer.fleet) != ("client", context.fleet):
        raise IdentityError(
            f"the context of {context.fleet} holds the certificate of {peer}, expected that of a client"
        )
    return ContextRow(
        context.fleet, context.engine, context.docker_context, context.addresses, peer.name, peer.expires_at
    )


def _cells(row: ContextRow) -> list[Cell | str]:
    left_s = row.expires_at - time.time()
    until = f"in {format_span(left_s)}" if left_s > 0 else Cell("expired", "red")
    return [row.fleet, row.engine, row.name, until, ", ".join(row.addresses)]
