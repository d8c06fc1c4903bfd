"""The stored fleet, as the command line reads and writes it: by compare-and-set, as anybody else might be doing it."""

from __future__ import annotations

import getpass
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.control.sqlite_store import open_store
from shoal.errors import PlanError, ShoalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.control.store import SecretRecord, StoredFleet
    from shoal.core.record import AgentRecord
    from shoal.engines.protocol import Capabilities
    from shoal.spec.model import Fleet

STATE_FILE = "state.db"


async def read_stored(directory: Path) -> StoredFleet | None:
    """What is stored; `None` where nothing ever was. It makes no state where there is none."""
    if not (directory / STATE_FILE).exists():
        return None
    async with open_store(directory / STATE_FILE) as store:
        return await store.read_fleet()


def other_directory(stored: StoredFleet | None, project: Path) -> str | None:
    """The directory from which a fleet that is stored was started, where it isn't this one."""
    if stored is None or stored.fleet is None or os.path.realpath(stored.directory) == os.path.realpath(project):
        return None
    return stored.directory


def make_state_directory(directory: Path) -> None:
    """Makes the fleet's directory, for its owner alone. Raises ShoalError where that can't be."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ShoalError(
            f"{directory} can't be made: {error.strerror or error}; the state needs a place that you may write to, "
            "which SHOAL_HOME can name"
        ) from error


async def write_stored(
    directory: Path,
    fleet: Fleet | None,
    project: str,
    expected_generation: int,
    secrets: Mapping[str, SecretRecord] | None = None,
    expected_secrets: Mapping[str, SecretRecord] | None = None,
    nonces: Mapping[str, str] | None = None,
    what: str = "",
) -> int:
    """Stores the fleet, with its secrets unless they stay as they are, and gives its generation. Raises Conflict,
    saying who was first."""
    make_state_directory(directory)
    async with open_store(directory / STATE_FILE) as store:
        return await store.write_fleet(
            fleet,
            directory=project,
            by=who_am_i(),
            at=time.time(),
            expected_generation=expected_generation,
            secrets=secrets,
            expected_secrets=expected_secrets,
            nonces=nonces,
            what=what,
        )


async def read_with_secrets(directory: Path) -> tuple[StoredFleet | None, Mapping[str, SecretRecord]]:
    """What is stored and its secrets, of one instant: those included that no agent uses, and that were given before
    the first fleet. It makes no state."""
    if not (directory / STATE_FILE).exists():
        return None, {}
    async with open_store(directory / STATE_FILE) as store:
        secrets = await store.read_secrets()
        stored = await store.read_fleet()
    return (None, secrets) if stored is None else (stored, stored.secrets)


async def read_records(directory: Path) -> Mapping[str, AgentRecord]:
    """What the controller noted of each agent. It makes no state."""
    if not (directory / STATE_FILE).exists():
        return {}
    async with open_store(directory / STATE_FILE) as store:
        return await store.read_records()


async def write_secrets(
    directory: Path,
    secrets: Mapping[str, SecretRecord],
    expected_generation: int,
    expected_secrets: Mapping[str, SecretRecord],
) -> None:
    """Stores what changes no replica, where anything differs from what was there. Raises Conflict."""
    make_state_directory(directory)
    if secrets == expected_secrets:
        return
    async with open_store(directory / STATE_FILE) as store:
        await store.write_secrets(secrets, expected_generation=expected_generation, expected_secrets=expected_secrets)


def generation_of(stored: StoredFleet | None) -> int:
    """The generation that a change is made on; 0 where none is stored."""
    return stored.generation if stored is not None else 0


def who_am_i() -> str:
    """Whom a conflict names."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


def capabilities_of(fleet: Fleet) -> Capabilities:
    """What the fleet's engine can do. Raises PlanError for an engine that this version has not."""
    if fleet.engine != "local":
        raise PlanError(
            f"engine: found {fleet.engine}; this version runs fleets on the engine local (choose an environment with "
            "`engine: local` by -e, or write `engine: local`)"
        )
    from shoal.engines.local.capabilities import CAPABILITIES

    return CAPABILITIES
