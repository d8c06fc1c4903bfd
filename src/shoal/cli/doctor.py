"""`shoal doctor`: what a fleet needs of this machine, each with what to do where it is missing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli.home import fleet_directory, state_home
from shoal.cli.options import FLEET_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import Cell, Column, emit, render_table, terminal_width
from shoal.errors import ShoalError

if TYPE_CHECKING:
    from shoal.cli.findings import Finding
    from shoal.spec.model import Fleet

_COLOURS = {"ok": "green", "note": "blue", "warning": "yellow", "failure": "red"}


@click.command(short_help="Check that this machine can run a fleet.")
@decorate(FLEET_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def doctor(common: Common) -> int:
    """Check that this machine can run a fleet, or its Swarm can, and say what to do where it can't.

    With a shoal.yaml in reach, its fleet's directory and ports are checked; with one for a Swarm (-e ENV), the Swarm.
    Exits 1 if something would fail.
    """
    findings = _findings(common)
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


def _findings(common: Common) -> list[Finding]:
    from shoal.cli.local.health_checks import check_all, check_python

    fleet = _fleet(common)
    if fleet is not None and fleet.engine == "kubernetes":
        from shoal.cli.kubernetes.health_checks import check_kubernetes
        from shoal.cli.kubernetes.place import KubernetesPlace

        cluster = common.place_of(fleet)
        assert isinstance(cluster, KubernetesPlace)
        return [check_python(), *asyncio.run(check_kubernetes(cluster, fleet))]
    if fleet is None or fleet.engine != "swarm":
        from shoal.spec.model import LocalOptions

        local, metrics = (LocalOptions(), None) if fleet is None else (fleet.local, fleet.metrics.port)
        return check_all(_directory(common), local, metrics)
    from shoal.cli.swarm.health_checks import check_swarm
    from shoal.cli.swarm.place import SwarmPlace

    place = common.place_of(fleet)
    assert isinstance(place, SwarmPlace)
    return [check_python(), *asyncio.run(check_swarm(place, fleet))]


def _directory(common: Common) -> Path:
    try:
        return fleet_directory(os.environ, common.fleet_name())
    except ShoalError:  # no file, or one with mistakes: all fleets', or where a first one would be
        home = state_home(os.environ)
        return home if os.path.isdir(home) else fleet_directory(os.environ, "fleet")  # noqa: PTH112 - never raises


def _fleet(common: Common) -> Fleet | None:
    """By the file, where there is a good one."""
    try:
        return common.load().fleet
    except ShoalError:
        return None
