"""Who may act for a fleet: one controller at a time, though two may run while a machine is cut off.

Somewhere stands who holds the right, with a sign that each renewal changes; it is written by compare-and-set. No wall
clocks are compared: the holder counts from the moment in which it began to ask for its last renewal, and who waits
counts from the moment in which it saw that renewal, which is later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from shoal.errors import Conflict, EngineError, EngineUnavailable

log = logging.getLogger(__name__)

TERM_S = 8.0
_RENEW_S = 2.0
_LOOK_S = 0.5
_SURE_S = 1.0  # who renewed within this time is there: it is not asked for each time that somebody looks
_DRIFT = 1.05  # clocks of two machines that run apart by so much
_RELEASE_TRIES = 20


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds the right, `""` for nobody, and the sign of the last renewal. `found` is the keeper's own: which
    version of what it keeps that was."""

    holder: str
    sign: str
    found: Any


class LeaseKeeper(Protocol):
    """Where it stands who holds the right. Methods raise EngineError where that can't be asked."""

    @property
    def granter(self) -> str:
        """Whose answer a renewal is, for messages."""
        ...

    async def read(self) -> Claim: ...

    async def write(self, claim: Claim, holder: str) -> None:
        """Gives it to `holder`, to whom it may belong already, with a new sign; `""` lets it go. Raises Conflict where
        it was written after `claim` was read."""
        ...


class Lease:
    """The right to act for a fleet. `gone` says of a holder that it has certainly ended, so that nobody has to wait."""

    def __init__(
        self,
        keeper: LeaseKeeper,
        holder: str,
        *,
        gone: Callable[[str], Awaitable[bool]],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._keeper, self.holder = keeper, holder
        self._gone, self._now, self._sleep = gone, now, sleep
        self._until = float("-inf")
        self._seen: tuple[Claim, float] | None = None  # another one's, and since when this sign of it was seen

    @property
    def held(self) -> bool:
        """Whether this one may act now."""
        return self._now() < self._until

    def require(self) -> None:
        """Raises EngineUnavailable unless this one may act now."""
        if not self.held:
            raise EngineUnavailable(
                f"this controller has not heard from {self._keeper.granter} for so long that another one may act in "
                "its place; it waits until it may again"
            )

    async def acquire(self) -> None:
        """Returns once this one may act: at once where nobody holds the right, or who does has ended."""
        told = ""
        while True:
            try:
                if await self._try():
                    return
                why = f"the fleet has a controller already, {self._seen[0].holder}" if self._seen is not None else ""
            except EngineError as error:  # one that starts refuses what it grants a moment later
                why = str(error)
            if why and why != told:
                log.warning("%s; this one waits", why)
                told = why
            await self._sleep(_LOOK_S)

    async def keep(self) -> None:
        """Renews until cancelled. Raises Conflict when another one has taken the right."""
        while True:
            await self._sleep(_RENEW_S)
            try:
                if not await self._try() and self._seen is not None:
                    raise Conflict(f"another controller acts now: {self._seen[0].holder}")
            except EngineError:
                continue  # nobody answers: `held` ends by itself

    async def release(self) -> None:
        """Lets the next one begin at once."""
        self._until = float("-inf")
        for _ in range(_RELEASE_TRIES):
            claim = await self._keeper.read()
            if claim.holder != self.holder:
                return
            try:
                await self._keeper.write(claim, "")
            except Conflict:
                continue
            return

    async def _try(self) -> bool:
        """One try to take or renew the right; whether it is held after it."""
        began = self._now()
        claim = await self._keeper.read()
        if not await self._may_take(claim):
            self._until = float("-inf")  # it was taken away, however long it would have lasted
            return False
        try:
            await self._keeper.write(claim, self.holder)
        except Conflict:
            return self.held  # somebody wrote there meanwhile; the next try comes soon enough
        self._until, self._seen = began + TERM_S, None
        return True

    async def _may_take(self, claim: Claim) -> bool:
        if claim.holder in ("", self.holder):
            return True
        now, before = self._now(), self._seen
        since = before[1] if before is not None and before[0].sign == claim.sign else now
        self._seen = (claim, since)
        if now - since > TERM_S * _DRIFT:
            return True
        return (before is None or now - since >= _SURE_S) and await self._gone(claim.holder)
