"""Belonging to a fleet for as long as the process lives: joins once, keeps the identity on disk, renews it in time.

Nothing here ends because the controller is away or refuses: it is told once and tried again, and what needs an identity
waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import IdentityError, ShoalError
from shoal.pki.authority import Authority
from shoal.pki.credentials import Credentials
from shoal.pki.identity import Identity
from shoal.pki.joining import join_fleet, renew
from shoal.pki.peer import Role
from shoal.pki.token import JoinToken

log = logging.getLogger(__name__)

IDENTITY_FILE = "identity.pem"
_LOOK_S = 60.0  # a clock that was set, or a machine that slept, is noticed within this time
_TRY_AGAIN_S = (0.5, 20.0)
_LEAST_S = 0.05
_WITHOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Invitation:
    """Where to join (https://HOST:PORT), as whom, and by the token in which file, which is read when it is needed."""

    url: str
    role: Role
    name: str
    token_file: Path


class Member:
    """Who was invited. `run` goes beside the rest; `ready` waits for the first identity that holds."""

    def __init__(self, directory: Path, invitation: Invitation, clock: Callable[[], float] = time.time) -> None:
        self._path = directory / IDENTITY_FILE
        self._invitation = invitation
        self._clock = clock
        self._credentials: Credentials | None = None
        self._renewed = asyncio.Event()  # since somebody who waits for it looked
        self._said = ""

    async def ready(self) -> Credentials:
        """Our credentials, once there are some that hold now; they are the same object for ever."""
        while self._credentials is None or not self._holds():
            self._renewed.clear()
            await self._renewed.wait()
        return self._credentials

    async def renewed(self, since: Identity) -> None:
        """Returns once the identity is another than this one."""
        while (await self.ready()).identity is since:
            self._renewed.clear()
            await self._renewed.wait()

    async def run(self) -> None:
        """Joins where that is needed, and renews until cancelled."""
        due = self._start_with_stored()
        while True:
            await _sleep_until(due, self._clock)
            wait_s = _TRY_AGAIN_S[0]
            while (identity := await self._try()) is None:
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
                wait_s = min(wait_s * 2, self._patience_s())
            # By our own clock from now on: the controller's may be another.
            due = self._clock() + (identity.renew_at - identity.peer.issued_at)

    def _start_with_stored(self) -> float:
        """When to act next: at once where nothing usable is stored."""
        try:
            identity = Identity.parse(self._path.read_text())
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError, IdentityError) as error:
            log.warning("can't use the identity stored in %s, joins anew: %s", self._path, error)
            return 0.0
        found, wanted = identity.peer, self._invitation
        if (found.role, found.name) != (wanted.role, wanted.name):
            log.warning("%s is of %s: joins anew as %s %s", self._path, found, wanted.role, wanted.name)
            return 0.0
        try:
            self._read_token().check_authority(identity.authority_pem)
        except IdentityError as error:
            log.warning("can't use the identity stored in %s, joins anew: %s", self._path, error)
            return 0.0
        except OSError:  # it has done its work
            pass
        if self._clock() < identity.peer.expires_at:
            self._credentials = Credentials(identity)
            self._renewed.set()
        return identity.renew_at

    def _read_token(self) -> JoinToken:
        return JoinToken.parse(self._invitation.token_file.read_text())

    def _holds(self) -> bool:
        return self._credentials is not None and self._clock() < self._credentials.identity.peer.expires_at

    def _patience_s(self) -> float:
        """Between tries: short while we have nothing that holds, else so that several fit into what is left of it."""
        if self._credentials is None or not self._holds():
            return _WITHOUT_S
        return min(_TRY_AGAIN_S[1], max(_LEAST_S, self._credentials.identity.life_s / 10))

    async def _try(self) -> Identity | None:
        try:
            identity = await self._obtain()
            self._take(identity)
        except ShoalError as error:
            if str(error) != self._said:
                log.warning("no new certificate yet, tries again: %s", error)
            self._said = str(error)
            return None
        except Exception as error:  # what this process does meanwhile must not end for it
            if repr(error) != self._said:
                log.exception("no new certificate by a fault of Shoal's, tries again")
            self._said = repr(error)
            return None
        self._said = ""
        return identity

    async def _obtain(self) -> Identity:
        """By the certificate that still holds, else by the token."""
        refused = ""
        if self._credentials is not None and self._holds():
            try:
                return await renew(self._invitation.url, self._credentials)
            except ShoalError as error:  # it may say no more than to hang up
                refused = f"{error}; and by the token: "
        try:
            to = self._invitation
            return await join_fleet(to.url, self._read_token(), role=to.role, name=to.name)
        except (OSError, ShoalError) as error:
            raise IdentityError(f"{refused}{error}") from error

    def _take(self, identity: Identity) -> None:
        if self._credentials is None:
            self._credentials = Credentials(identity)
        else:
            self._credentials.replace(identity)
        log.info("has a certificate as %s for %.0f s", identity.peer, identity.life_s)
        try:
            _write(self._path, identity.pem)
        except OSError as error:  # we have it all the same; whoever starts after us joins by the token
            log.warning("can't store the identity in %s: %s", self._path, error)
        self._renewed.set()


async def keep_issued(credentials: Credentials, authority: Authority, clock: Callable[[], float] = time.time) -> None:
    """For who has the authority itself: issues the next identity of the same holder and life in time, until
    cancelled."""
    while True:
        identity = credentials.identity
        await _sleep_until(identity.renew_at, clock)
        peer = identity.peer
        credentials.replace(authority.issue(peer.role, peer.name, now=clock(), ttl_s=identity.life_s))


async def _sleep_until(due: float, clock: Callable[[], float]) -> None:
    """Or for as long as that is from now by a clock that nobody sets, whichever is over first."""
    steady = asyncio.get_running_loop().time
    end = steady() + due - clock()
    while (left_s := min(due - clock(), end - steady())) > 0:  # noqa: ASYNC110 - nothing tells that a clock was set
        await asyncio.sleep(min(left_s, _LOOK_S))


def _write(path: Path, text: str) -> None:
    """Whole or not at all, for its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.chmod(0o600)
    new.write_text(text)
    new.replace(path)
