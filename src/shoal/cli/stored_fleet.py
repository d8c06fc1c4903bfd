"""The stored fleet, as the command line reads and writes it: by compare-and-set, as anybody else might be doing it."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from shoal.cli.place import Place
    from shoal.control.store import SecretRecord, StoredFleet
    from shoal.spec.model import Fleet


async def read_stored(place: Place) -> StoredFleet | None:
    """What is stored; `None` where nothing ever was."""
    async with place.store() as store:
        return await store.read_fleet()


def other_directory(place: Place, stored: StoredFleet | None, project: Path) -> str | None:
    """The directory from which a fleet that is stored was started, where it isn't this one and that matters."""
    if place.shared or stored is None or stored.fleet is None:
        return None
    if os.path.realpath(stored.directory) == os.path.realpath(project):
        return None
    return stored.directory


def new_nonces(agents: Iterable[str]) -> dict[str, str]:
    """Those by which agents get new replicas though nothing of them differs."""
    return {name: secrets.token_hex(4) for name in agents}


async def write_stored(
    place: Place,
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
    async with place.store(make=True) as store:
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


async def read_with_secrets(place: Place) -> tuple[StoredFleet | None, Mapping[str, SecretRecord]]:
    """What is stored and its secrets, of one instant: those included that no agent uses, and that were given before
    the first fleet."""
    async with place.store() as store:
        secrets = await store.read_secrets()
        stored = await store.read_fleet()
    return (None, secrets) if stored is None else (stored, stored.secrets)


async def write_secrets(
    place: Place,
    secrets: Mapping[str, SecretRecord],
    expected_generation: int,
    expected_secrets: Mapping[str, SecretRecord],
) -> None:
    """Stores what changes no replica, where anything differs from what was there. Raises Conflict."""
    if secrets == expected_secrets:
        return
    async with place.store(make=True) as store:
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
