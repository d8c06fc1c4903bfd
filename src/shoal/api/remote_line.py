"""To the controller of a fleet elsewhere: mutual TLS to whichever of its addresses answers.

The person's certificate is short-lived and renewed here, silently, by whoever is about to ask something anyway.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from shoal.api.lines import Preface, WebRoute
from shoal.errors import ControllerUnavailable, IdentityError, ShoalError
from shoal.http1 import HEAD_LIMIT_BYTES, ProtocolError, Streams
from shoal.pki.credentials import Credentials
from shoal.pki.identity import Identity
from shoal.pki.joining import describe_tls_error, renew
from shoal.pki.peer import server_name

_CONNECT_S = 5.0
_NEXT_S = 0.3  # until the next address is tried beside those that have not answered yet


class RemoteLine:
    """`addresses` are HOST:PORT of the admin port, any of which may answer; `keep` stores a renewed identity."""

    def __init__(
        self,
        addresses: Sequence[str],
        credentials: Credentials,
        keep: Callable[[Identity], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._addresses = list(addresses)
        self._credentials = credentials
        self._keep = keep
        self._clock = clock
        self._fleet = credentials.identity.peer.fleet
        self._renewal_tried = False

    async def open(self) -> Streams:
        identity = self._credentials.identity
        now = self._clock()
        if now >= identity.peer.expires_at:
            raise IdentityError(self._expired())
        address, streams = await self._first_to_answer()
        self._addresses.sort(key=lambda each: each != address)
        if now >= identity.renew_at and not self._renewal_tried:
            self._renewal_tried = True
            await self._renew(address)
        return streams

    async def preface(self) -> Preface:
        return Preface()

    def refused(self, status: int, body: bytes) -> ShoalError | None:
        return None

    async def route(self) -> WebRoute:
        import aiohttp  # noqa: PLC0415 - takes as long as most commands in all

        _, writer = await self.open()
        writer.transport.abort()  # it was to know which address answers, and that the certificate is let in
        connector = aiohttp.TCPConnector(ssl=self._credentials.client_context())
        return WebRoute(f"https://{self._addresses[0]}", connector, server_name("controller"))

    async def _renew(self, address: str) -> None:
        try:
            identity = await renew(f"https://{address}", self._credentials)
            self._credentials.replace(identity)
            self._keep(identity)
        except (ShoalError, OSError):  # it holds for a while, and the next command tries again
            return

    async def _first_to_answer(self) -> tuple[str, Streams]:
        """Each address a moment after the one before, or at once where that refuses; whoever is too late is hung up
        on."""
        done: asyncio.Queue[tuple[str, Streams | OSError]] = asyncio.Queue()
        errors: dict[str, OSError] = {}
        winner: tuple[str, Streams] | None = None
        async with asyncio.TaskGroup() as tasks:
            tries: list[asyncio.Task[None]] = []
            while winner is None and len(errors) < len(self._addresses):
                if len(tries) < len(self._addresses):
                    tries.append(tasks.create_task(self._try(self._addresses[len(tries)], done)))
                more = len(tries) < len(self._addresses)
                try:
                    async with asyncio.timeout(_NEXT_S if more else None):
                        address, found = await done.get()
                except TimeoutError:
                    continue
                if isinstance(found, OSError):
                    errors[address] = found
                else:
                    winner = address, found
            for task in tries:
                task.cancel()
        while not done.empty():
            _, late = done.get_nowait()
            if not isinstance(late, OSError):
                late[1].transport.abort()
        if winner is None:
            raise self._nobody(errors)
        return winner

    async def _try(self, address: str, done: asyncio.Queue[tuple[str, Streams | OSError]]) -> None:
        parts = urlsplit(f"//{address}")
        try:
            async with asyncio.timeout(_CONNECT_S):
                streams = await asyncio.open_connection(
                    parts.hostname,
                    parts.port,
                    ssl=self._credentials.client_context(),
                    server_hostname=server_name("controller"),
                    limit=HEAD_LIMIT_BYTES,
                )
        except OSError as error:
            done.put_nowait((address, error))
        else:
            done.put_nowait((address, streams))

    def _nobody(self, errors: dict[str, OSError]) -> ShoalError:
        for address, error in errors.items():
            if isinstance(error, ssl.SSLError):  # somebody answers there, which says more than that others don't
                return IdentityError(f"{address}: {describe_tls_error(error)}")
        tried = "; ".join(f"{address}: {_words(error)}" for address, error in errors.items())
        return ControllerUnavailable(
            f"no controller of {self._fleet} answers at {tried}; look whether the port can be reached from here, and "
            "by `shoal context list` whether these are still its addresses"
        )

    def absent(self, error: OSError | ProtocolError) -> ShoalError:
        if isinstance(error, ssl.SSLError):
            expired = self._clock() >= self._credentials.identity.peer.expires_at
            said = self._expired() if expired else describe_tls_error(error)
            return IdentityError(f"{self._addresses[0]}: {said}")
        # A server's alert seldom arrives: with TLS 1.3 it refuses a certificate after the client took all for well.
        return ControllerUnavailable(
            f"the controller at {self._addresses[0]} hung up: where it was moved or replaced, it is back in some "
            "seconds; if it stays so, it does not accept your certificate (the fleet was made anew?): get one by "
            f"`shoal context export {self._fleet}`"
        )

    def late(self, waited_s: float) -> ShoalError:
        return ControllerUnavailable(
            f"the controller at {self._addresses[0]} took the request, but did not answer within {waited_s:g}s"
        )

    def _expired(self) -> str:
        at = datetime.fromtimestamp(self._credentials.identity.peer.expires_at).astimezone()
        return (
            f"your certificate for {self._fleet} expired at {at:%Y-%m-%d %H:%M}; let somebody who has a valid one run "
            f"`shoal context export {self._fleet}`, and take its file by `shoal context import FILE`"
        )


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_CONNECT_S:g}s"
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__
