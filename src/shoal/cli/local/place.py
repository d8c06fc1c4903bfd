"""The place of a fleet on this machine: everything of it is below one directory."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.cli.output import say
from shoal.cli.place import VolumeUse
from shoal.errors import Conflict, ShoalError

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.api.views import EventView, LogView, StatusView
    from shoal.cli.local.controller_process import StartedController
    from shoal.control.secret_contents import SecretContents
    from shoal.control.store import SecretRecord, Store, StoredFleet
    from shoal.core.drift import Drift
    from shoal.engines.protocol import Capabilities
    from shoal.spec.model import Fleet

STATE_FILE = "state.db"


class LocalPlace:
    """See `shoal.cli.place.Place`. Nothing is made below `directory` by those who only look."""

    shared = False

    def __init__(self, directory: Path, fleet: str) -> None:
        self.directory = directory
        self.fleet = fleet
        self._ending: StartedController | None = None  # that was started to end the fleet, and ends with it

    @property
    def capabilities(self) -> Capabilities:
        from shoal.engines.local.capabilities import CAPABILITIES

        return CAPABILITIES

    def client(self) -> Client:
        from shoal.api.client import Client, socket_path

        return Client(socket_path(self.directory))

    @asynccontextmanager
    async def store(self, *, make: bool = False) -> AsyncGenerator[Store]:
        if make:
            self._make_directory()
        elif not self._has_state:
            from shoal.control.memory_store import MemoryStore

            yield MemoryStore()
            return
        from shoal.control.sqlite_store import open_store

        async with open_store(self.directory / STATE_FILE) as store:
            yield store

    async def contents(self, *, make: bool = False) -> LocalContents:
        from shoal.control.secret_contents import SecretContents

        if make:
            self._make_directory()
        return LocalContents(SecretContents(self.directory))

    async def drift(self, stored: StoredFleet) -> tuple[Drift, ...]:
        return ()

    async def try_out(self, fleet: Fleet, known: Mapping[str, bytes], records: Mapping[str, SecretRecord]) -> None:
        return  # there is nobody to refuse it

    async def tell_or_start(self, fleet: Fleet, known: Mapping[str, bytes]) -> StartedController | None:
        from shoal.cli.local.controller_process import tell_or_start
        from shoal.spec.exposed import secrets_by_variable

        of_secrets = secrets_by_variable(fleet.agents.values(), fleet.secrets)
        return await tell_or_start(self.client(), self.directory, self.fleet, of_secrets.keys())

    async def ender(self, *, data: bool) -> Client | None:
        from shoal.cli.local.controller_process import answers, start_controller, wait_answers

        client = self.client()
        if await answers(client):
            return client
        if not await self._anything_left(data=data):
            return None
        say("No controller answers; starting one to stop what it finds ...")
        await self._forget_what_does_not_run()
        self._ending = start_controller(self.directory, self.fleet)
        await wait_answers(client, self._ending)
        return client

    async def tidy(self, *, data: bool) -> None:
        from shoal.cli.local.controller_process import LOG_FILE, remove_sockets, wait_ended

        await self._require_still_down()
        if not await wait_ended(self.directory, self._ending):
            await self._require_still_down()
            log = self.directory / LOG_FILE
            raise ShoalError(f"everything is stopped, but the controller does not end; see {log}")
        if data:
            await self._forget_pins()
        if data and (left := self.directory / "volumes").exists():
            raise ShoalError(
                f"everything is stopped, but not all of {left} could be deleted: agents left files there that belong "
                "to somebody else, or are protected (delete it by hand)"
            )
        remove_sockets(self.directory)

    async def look(self) -> StatusView | None:
        from shoal.cli.local.away import look_without_controller

        stored = await self._stored()
        return look_without_controller(self.directory, self.fleet, stored) if stored is not None else None

    def events(self) -> Iterator[EventView] | None:
        from shoal.api.views import EventView
        from shoal.control.event_file import EVENTS_FILE, read_events

        path = self.directory / EVENTS_FILE
        if not path.exists():
            return None
        return (EventView(event.at, event.agent, event.kind, event.message) for event in read_events(path))

    def logs(
        self, agents: Sequence[str], since: float | None, tail: int | None
    ) -> AsyncGenerator[LogView, None] | None:
        from shoal.cli.local.logs_on_disk import read_logs_on_disk

        return read_logs_on_disk(self.directory, agents, since, tail) if self.directory.exists() else None

    async def volume_use(self, name: str, owner: str | None) -> VolumeUse:
        volumes = self.directory / "volumes"
        folders = [volumes / "shared" / name] if owner is None else [*(volumes / "owned" / owner).glob(f"*/{name}")]
        files = [path for folder in folders for path in _files(folder)]
        return VolumeUse(len(files), sum(path.lstat().st_size for path in files), len(folders))

    @property
    def _has_state(self) -> bool:
        return (self.directory / STATE_FILE).exists()

    def _make_directory(self) -> None:
        """For its owner alone. Raises ShoalError where that can't be."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ShoalError(
                f"{self.directory} can't be made: {error.strerror or error}; the state needs a place that you may "
                "write to, which SHOAL_HOME can name"
            ) from error

    async def _stored(self) -> StoredFleet | None:
        async with self.store() as store:
            return await store.read_fleet()

    async def _require_still_down(self) -> None:
        """Raises Conflict where somebody started the fleet again as soon as it was stopped."""
        stored = await self._stored()
        if stored is not None and stored.fleet is not None:
            raise Conflict(
                f"everything was stopped, and {self.fleet} was started again by {stored.by} meanwhile; `shoal status` "
                "shows it"
            )

    async def _forget_what_does_not_run(self) -> None:
        """A controller that finds the fleet stored starts its agents until it is told to stop them. It needs it all the
        same where any of them run: from it comes the order in which they end, and what they call meanwhile."""
        from shoal.cli.local.away import agents_run
        from shoal.cli.stored_fleet import write_stored

        stored = await self._stored()
        if stored is not None and stored.fleet is not None and not agents_run(self.directory):
            await write_stored(self, None, stored.directory, stored.generation)

    async def _forget_pins(self) -> None:
        from shoal.control.store import keep_at_end

        async with self.store() as store:
            await keep_at_end(store, pins=False)

    async def _anything_left(self, *, data: bool) -> bool:
        """Whether a fleet is stored, or something of one is still there though its controller is not."""
        from shoal.cli.local.away import platform_runs

        stored = await self._stored()
        if stored is None:
            return False
        kept = [self.directory / "volumes", self.directory / "platform"] if data else []
        lives = (self.directory / "agents").glob("*/lives/*")
        there = stored.fleet is not None or any(lives) or any(path.exists() for path in kept)
        return there or platform_runs(self.directory)


class LocalContents:
    """See `shoal.cli.place.Contents`. A content is kept once, whatever the names of the secrets that hold it."""

    def __init__(self, kept: SecretContents) -> None:
        self._kept = kept
        self.digest = kept.digest
        self.mask = kept.mask

    def has(self, name: str, digest: str) -> bool:
        return self._kept.has(digest)

    async def put(self, name: str, content: bytes) -> str:
        return self._kept.put(content)

    async def prune(self, kept: Collection[str]) -> None:
        self._kept.prune(kept, unnamed_s=0.0)

    async def release(self, name: str, digest: str) -> None:
        self._kept.release(digest)


def _files(folder: Path) -> list[Path]:
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names]
