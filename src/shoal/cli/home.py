"""Where a fleet keeps its state on this machine. The environment decides, and it is read in the command line alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shoal.errors import ShoalError

if TYPE_CHECKING:
    from pathlib import Path


def state_home(environ: Mapping[str, str]) -> Path:
    """The directory that holds one directory a fleet: `$SHOAL_HOME`, else the state directory of XDG."""
    from pathlib import Path  # with what it imports it costs a tenth of `shoal --help`

    if environ.get("SHOAL_HOME"):
        return Path(environ["SHOAL_HOME"]).expanduser().absolute()
    # XDG's own rule: a relative path in the variable is to be ignored.
    base = Path(environ.get("XDG_STATE_HOME") or "")
    if not base.is_absolute():
        base = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
        base = base / ".local" / "state"
    return base / "shoal"


def known_fleets(environ: Mapping[str, str]) -> list[str]:
    """The names of the fleets that keep their state on this machine."""
    try:
        return sorted(path.parent.name for path in state_home(environ).glob("*/state.db"))
    except OSError:
        return []


def describe_known(environ: Mapping[str, str]) -> str:
    """Them in words, for a name that is none of them."""
    return f"in {state_home(environ)} there are: {', '.join(known_fleets(environ)) or 'none'}"


def fleet_directory(environ: Mapping[str, str], fleet: str) -> Path:
    """Where the fleet of that name keeps its state."""
    return state_home(environ) / fleet


def reachable_directory(environ: Mapping[str, str], fleet: str) -> Path:
    """The same for who is about to use it, whether it is there yet or not. Raises ShoalError where it can't be used."""
    directory = fleet_directory(environ, fleet)
    try:
        directory.stat()
        found = None if directory.is_dir() else "is no directory"
    except FileNotFoundError:
        return directory
    except OSError as error:
        found = f"can't be looked at: {error.strerror or error}"
    if found is None and not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        found = f"is not yours to read and write: it belongs to user {directory.stat().st_uid}"
    if found is not None:
        raise ShoalError(
            f"{directory} {found}; a fleet keeps its state in a directory of the user who runs it, below the one that "
            "SHOAL_HOME names"
        )
    return directory
