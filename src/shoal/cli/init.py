"""`shoal init`: first files, to be changed rather than written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from shoal.cli.options import FILE_NAMES
from shoal.errors import ShoalError


@click.command(short_help="Write a first shoal.yaml into this directory.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
def init(force: bool) -> None:
    """Write a first shoal.yaml into this directory, and the agent that it runs. The fleet gets the directory's name.

    It never writes over a file unless told to with --force.
    """
    from shoal.spec.starter import starter_files

    files = starter_files(Path.cwd().name)
    there = [name for name in sorted({*FILE_NAMES, *files}) if Path(name).exists()]
    if there and not force:
        raise ShoalError(f"{' and '.join(there)} would be written over; go to an empty directory, or add --force")
    for name, text in files.items():
        _write_whole(Path(name), text)
    click.echo(f"Wrote {' and '.join(files)}. `shoal validate` checks the fleet, `shoal up` starts it.")


def _write_whole(path: Path, text: str) -> None:
    """All of it or nothing, so that a full disk leaves what was there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise ShoalError(f"{path} can't be written: {error.strerror or error}") from error
