"""Who may act on a Swarm: one controller at a time, though two may run while a node is cut off.

A label of the state's service says who holds the right, and a counter that each renewal raises. No wall clocks are
compared: the holder counts from the moment in which it began to ask for its last renewal, and who waits counts from the
moment in which it saw that renewal, which is later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from shoal.control.swarm_store import Keeper
from shoal.engines.swarm.docker import DockerError
from shoal.engines.swarm.names import Role, own_name
from shoal.errors import Conflict, EngineError

log = logging.getLogger(__name__)

LEASE = "shoal.lease"
TERM_S = 8.0
_RENEW_S = 2.0
_LOOK_S = 0.5
_DRIFT = 1.05  # clocks of two machines that run apart by so much


class Lease:
    """The right to act for a fleet. `gone` says of a holder that it has certainly ended, so that nobody has to wait."""

    def __init__(
        self,
        docker: Keeper,
        fleet: str,
        holder: str,
        *,
        gone: Callable[[str], Awaitable[bool]],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._docker, self._name, self.holder = docker, own_name(fleet, Role.STATE.value), holder
        self._gone, self._now, self._sleep = gone, now, sleep
        self._until = float("-inf")
        self._seen: tuple[str, float] | None = None  # what the label said, and since when it was seen

    @property
    def held(self) -> bool:
        """Whether this one may act now."""
        return self._now() < self._until

    def require(self) -> None:
        """Raises Conflict unless this one may act now."""
        if not self.held:
            raise Conflict(
                "this controller has not heard from the Swarm's managers for so long that another one may act in its "
                "place; it waits until it may again"
            )

    async def acquire(self) -> None:
        """Returns once this one may act: at once where nobody holds the right, or who does has ended."""
        told = False
        while not await self._try():
            if not told and self._seen is not None:
                log.warning("the fleet has a controller already, %s; this one waits", self._seen[0].partition(" ")[0])
                told = True
            await self._sleep(_LOOK_S)

    async def keep(self) -> None:
        """Renews until cancelled. Raises Conflict when another one has taken the right."""
        while True:
            await self._sleep(_RENEW_S)
            try:
                if not await self._try():
                    raise Conflict(f"another controller acts now: {(self._seen or ('',))[0].partition(' ')[0]}")
            except EngineError:
                continue  # the managers don't answer: `held` ends by itself

    async def release(self) -> None:
        """Lets the next one begin at once."""
        self._until = float("-inf")

        def change(spec: dict[str, Any]) -> dict[str, Any] | None:
            if spec["Labels"].get(LEASE, "").partition(" ")[0] != self.holder:
                return None
            spec["Labels"].pop(LEASE)
            return spec

        await self._docker.update_service(self._name, change)

    async def _try(self) -> bool:
        """One try to take or renew the right; whether it is held after it."""
        began = self._now()
        service = await self._docker.service(self._name)
        spec, found = service["Spec"], service["Spec"]["Labels"].get(LEASE, "")
        if not await self._may_take(found):
            return False
        counter = int(found.partition(" ")[2] or 0) + 1
        spec["Labels"] = {**spec["Labels"], LEASE: f"{self.holder} {counter}"}
        try:
            await self._docker.write_service(service["ID"], service["Version"]["Index"], spec)
        except Conflict:
            return self.held  # the state was written meanwhile; the next try comes soon enough
        except DockerError as error:
            if error.status == 404:
                return self.held
            raise
        self._until = began + TERM_S
        return True

    async def _may_take(self, found: str) -> bool:
        holder = found.partition(" ")[0]
        if holder in ("", self.holder):
            return True
        now = self._now()
        if self._seen is None or self._seen[0] != found:
            self._seen = (found, now)
        return now - self._seen[1] > TERM_S * _DRIFT or await self._gone(holder)
