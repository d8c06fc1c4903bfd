"""`shoal validate`: every error of the file at once, for people and for editors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shoal.cli.engine_check import check_engine
from shoal.cli.options import SPEC_OPTIONS, Common, decorate, output_option, pass_common
from shoal.cli.output import count_of, emit, say
from shoal.errors import SpecError

if TYPE_CHECKING:
    from shoal.errors import Problem


@click.command(short_help="Check the file, and tell every error at once.")
@decorate(SPEC_OPTIONS)
@output_option("text", "json", "yaml")
@pass_common
def validate(common: Common) -> int:
    """Check the file, and tell every error at once.

    Each error says where it is (file:line:column), what was found and what to do; so does what the engine can't run.
    Exits 1 if there is any. `-o json` is for editors.
    """
    try:
        loaded = common.load()
        check_engine(loaded)
    except SpecError as error:
        if common.output == "text":
            raise
        emit({"valid": False, "problems": [_as_plain(problem) for problem in error.problems], "warnings": []},
             common.output)  # fmt: skip
        return 1
    if common.output == "text":
        for warning in loaded.warnings:
            say(f"warning: {warning}", fg="yellow")
        fleet = loaded.fleet
        click.echo(f"{fleet.fleet}: {count_of(len(fleet.agents), 'agent')} on the {fleet.engine} engine, no errors")
    else:
        emit({"valid": True, "problems": [], "warnings": [_as_plain(each) for each in loaded.warnings]}, common.output)
    return 0


def _as_plain(problem: Problem) -> dict[str, Any]:
    place = problem.place
    return {
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "path": problem.path,
        "message": problem.message,
        "remedy": problem.remedy,
    }
