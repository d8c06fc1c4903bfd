"""Gateways made of values, for tests of control: they agree at once or when told, and count what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from shoal.core.routing import Snapshot, Traffic
from shoal.proxy.ledger import Ledger
from shoal.proxy.wire import EnvoyEnd


class MemoryGateways:
    """Implements `Gateways`. `snapshot` is the newest that was pushed; with `agrees=False` versions are acknowledged
    only by `acknowledge`; `refusals` is what the test puts into it. A gateway that is gone counts for the barrier as
    long as `comes_back_s`."""

    def __init__(self, *names: str, agrees: bool = True, comes_back_s: float = 0.0) -> None:
        self._acknowledged = dict.fromkeys(names, 0)
        self._agrees = agrees
        self._comes_back_s = comes_back_s
        self._left: dict[str, float] = {}
        self._ledger = Ledger()
        self._changed = asyncio.Event()
        self._acknowledgement = asyncio.Event()
        self.version = 0
        self.snapshot: Snapshot | None = None
        self.refusals: dict[str, str] = {}
        self._ends: list[tuple[str, EnvoyEnd]] = []
        if names:
            self._changed.set()

    @property
    def live(self) -> tuple[str, ...]:
        return tuple(sorted(self._acknowledged))

    @property
    def agreed(self) -> bool:
        up_to_date = all(v >= self.version or name in self.refusals for name, v in self._acknowledged.items())
        return self.version > 0 and bool(self._acknowledged) and up_to_date

    def push(self, snapshot: Snapshot) -> int:
        self.snapshot = snapshot
        self.version += 1
        self._ledger.retain(snapshot.agents)
        if self._agrees:
            self._acknowledged = dict.fromkeys(self._acknowledged, self.version)
            self._acknowledgement.set()
        return self.version

    async def wait_acknowledged(self, version: int, timeout_s: float = 5.0) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(timeout_s):
                while self._behind(version):
                    self._acknowledgement.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._comes_back_s if self._left else None):
                            await self._acknowledgement.wait()
        except TimeoutError:
            pass
        return self._behind(version)

    def traffic(self) -> Mapping[str, Traffic]:
        return self._ledger.merged

    def take_ends(self) -> tuple[tuple[str, EnvoyEnd], ...]:
        taken, self._ends = tuple(self._ends), []
        return taken

    async def changed(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    def connect(self, name: str) -> None:
        """A gateway comes, and with `agrees` it uses the newest snapshot at once."""
        self._acknowledged[name] = self.version if self._agrees else 0
        self._changed.set()

    def disconnect(self, name: str) -> None:
        """A gateway is gone; what it counted stays counted."""
        del self._acknowledged[name]
        if self._comes_back_s:
            self._left[name] = asyncio.get_running_loop().time()
        self._ledger.lose(name)
        self._changed.set()
        self._acknowledgement.set()

    def acknowledge(self, name: str | None = None, version: int | None = None) -> None:
        """The gateway, or each, uses the version, or the newest."""
        had_agreed = self.agreed
        for each in [name] if name is not None else list(self._acknowledged):
            self._acknowledged[each] = self.version if version is None else version
        self._acknowledgement.set()
        if self.agreed and not had_agreed:
            self._changed.set()

    def acknowledged(self, name: str) -> int:
        """The newest version that the gateway uses."""
        return self._acknowledged[name]

    def end(self, name: str, end: EnvoyEnd) -> None:
        """The gateway's Envoy ended by itself."""
        self._ends.append((name, end))
        self._changed.set()

    def count(self, name: str, traffic: Mapping[str, Traffic]) -> None:
        """The gateway says these counts from now on."""
        if self._ledger.update(name, traffic):
            self._changed.set()

    def _behind(self, version: int) -> tuple[str, ...]:
        if self._left:
            now = asyncio.get_running_loop().time()
            self._left = {name: at for name, at in self._left.items() if now - at < self._comes_back_s}
        behind = {name for name, newest in self._acknowledged.items() if newest < version}
        return tuple(sorted(behind | (self._left.keys() - self._acknowledged.keys())))
