"""Whose fleet a command would change: the file says its name, and so may a file in another directory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoal.errors import PlanError

if TYPE_CHECKING:
    from shoal.cli.options import Common


def require_own_fleet(common: Common) -> None:
    """Raises PlanError where the fleet of the file's name was started from another directory. `--fleet NAME` is
    consent: then no file says which is meant."""
    if common.fleet is not None:
        return
    from shoal.cli.stored_fleet import other_directory, read_stored

    place = common.place()
    elsewhere = other_directory(place, asyncio.run(read_stored(place)), common.project_directory())
    if elsewhere is not None:
        name = common.fleet_name()
        raise PlanError(
            f"fleet: {name} was started from {elsewhere} and runs; this is {common.project_directory()}. "
            f"--fleet {name} says that it is meant all the same"
        )
