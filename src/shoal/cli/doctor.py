"""`shoal doctor`: what a fleet needs of this machine, each with what to do where it is missing."""

from __future__ import annotations

import os
from pathlib import Path

import click

from shoal.cli.home import fleet_directory, state_home
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import Cell, Column, emit, render_table, terminal_width
from shoal.errors import ShoalError

_COLOURS = {"ok": "green", "note": "blue", "warning": "yellow", "failure": "red"}


@click.command(short_help="Check that this machine can run a fleet.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def doctor(common: Common) -> int:
    """Check that this machine can run a fleet, and say what to do where it can't.

    With a shoal.yaml in reach, its fleet's directory and ports are checked. Exits 1 if something would fail.
    """
    from shoal.cli.local.health_checks import check_all

    directory, port = _directory(common), _port(common)
    findings = check_all(directory, port)
    if common.output != "text":
        emit(findings, common.output)
    else:
        columns = (Column("CHECK"), Column("RESULT"), Column("FOUND"))
        rows = [
            [
                finding.check,
                Cell(finding.result, _COLOURS[finding.result]),
                "; ".join(filter(None, [finding.found, finding.remedy])),
            ]
            for finding in findings
        ]
        click.echo(render_table(columns, rows, terminal_width()))
    return 1 if any(finding.result == "failure" for finding in findings) else 0


def _directory(common: Common) -> Path:
    try:
        return fleet_directory(os.environ, common.fleet_name())
    except ShoalError:  # no file, or one with mistakes: all fleets', or where a first one would be
        home = state_home(os.environ)
        return home if os.path.isdir(home) else fleet_directory(os.environ, "fleet")  # noqa: PTH112 - never raises


def _port(common: Common) -> int:
    """The gateway's port, by the file where there is a good one."""
    try:
        return common.load().fleet.local.port
    except ShoalError:
        return 8080
