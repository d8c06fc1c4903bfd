"""`shoal schema`: the JSON Schema of the file, for editors."""

from __future__ import annotations

import click

from shoal.cli.output import emit


@click.command(short_help="Print the JSON Schema of the file.")
def schema() -> None:
    """Print the JSON Schema of the file.

    An editor completes and checks shoal.yaml by it: write it into a file and put
    `# yaml-language-server: $schema=FILE` on the first line.
    """
    from shoal.spec import json_schema

    emit(json_schema(), "json")
