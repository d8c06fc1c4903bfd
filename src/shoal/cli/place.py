"""Where a fleet is kept and run: the port through which commands store it, reach its controller, and see what is there
without one. Each engine has its own; what it does by files, sockets or the engine's API is behind it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.api.views import EventView, LogView, StatusView
    from shoal.control.store import SecretRecord, Store, StoredFleet
    from shoal.core.drift import Drift
    from shoal.engines.protocol import Capabilities
    from shoal.spec.model import Fleet


class Contents(Protocol):
    """What the secrets of one fleet hold, by the HMAC under the fleet's own key. Methods may raise StoreError."""

    def digest(self, content: bytes) -> str:
        """The HMAC that the content has in this fleet."""
        ...

    def has(self, name: str, digest: str) -> bool:
        """Whether the content of this HMAC is kept for the secret of that name."""
        ...

    def mask(self, text: str) -> str:
        """The text without the contents that are known here."""
        ...

    async def put(self, name: str, content: bytes) -> str:
        """Keeps the content, and gives its HMAC."""
        ...

    async def prune(self, kept: Collection[str]) -> None:
        """Removes the contents that none of these HMACs names."""
        ...

    async def release(self, name: str, digest: str) -> None:
        """The controller may remove this one, however short a time ago it was put."""
        ...


class Started(Protocol):
    """A controller that a command started, and that ends with what the command does."""

    def hurry(self) -> None:
        """Ends at once what was told to end."""
        ...

    async def ended(self) -> int | None:
        """Its exit code; `None` where it does not end."""
        ...

    def last_words(self) -> str:
        """The end of what it wrote."""
        ...


class Ender(Protocol):
    """Who drains and stops everything: a controller, or what stands in for one."""

    def watch(self) -> AsyncGenerator[StatusView, None]: ...

    async def down(self, *, volumes: bool = False) -> None: ...


@dataclass(frozen=True, slots=True)
class VolumeUse:
    """What a volume holds, that of all replicas together where each has its own; `None` where nobody can look."""

    files: int | None
    size_bytes: int | None
    replicas: int | None


class Place(Protocol):
    """Where one fleet is kept and run. Methods may raise ShoalError where that can't be reached or used."""

    @property
    def fleet(self) -> str:
        """The fleet's name."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def shared(self) -> bool:
        """Whether people start it from wherever they are, so that the directory of its file says nothing of whose it
        is."""
        ...

    def client(self) -> Client:
        """The API of the controller, which may not be there."""
        ...

    def store(self, *, make: bool = False) -> AbstractAsyncContextManager[Store]:
        """What is stored. Only with `make` it may be written, and is made where nothing ever was."""
        ...

    async def contents(self, *, make: bool = False) -> Contents:
        """What secrets hold, in the same way."""
        ...

    async def drift(self, stored: StoredFleet) -> tuple[Drift, ...]:
        """What somebody else changed of what runs of the stored fleet, and `up` puts back; nothing where the engine
        can't tell."""
        ...

    async def try_out(self, fleet: Fleet, known: Mapping[str, bytes], records: Mapping[str, SecretRecord]) -> None:
        """Raises ShoalError where `tell_or_start` would be refused, as far as that can be told before the fleet is
        stored with these secrets; nothing is changed."""
        ...

    async def tell_or_start(self, fleet: Fleet, known: Mapping[str, bytes]) -> Started | None:
        """Sees to it that a controller is there and knows of what is stored; gives the one that it had to start, where
        that is this command's to end. `known` is what the fleet's secrets hold, as far as that is known here."""
        ...

    async def ender(self, *, data: bool) -> Ender | None:
        """Who ends the fleet, with its data; `None` where there is nothing to end."""
        ...

    async def tidy(self, *, data: bool) -> None:
        """Removes what is of no use once all is stopped. Raises ShoalError where something is left."""
        ...

    # While no controller answers; `None`, also of an iterable, where nothing can be said.

    async def look(self) -> StatusView | None: ...

    def events(self) -> Iterable[EventView] | None:
        """The oldest first."""
        ...

    def logs(
        self, agents: Sequence[str], since: float | None, tail: int | None
    ) -> AsyncGenerator[LogView, None] | None:
        """The oldest first; of all agents where none is named. Raises NotFound."""
        ...

    async def volume_use(self, name: str, owner: str | None) -> VolumeUse:
        """Of a named volume: that of the agent `owner`, or with `None` the one that agents share."""
        ...
