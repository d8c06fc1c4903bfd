"""The port that control knows of the gateways: one snapshot down, acknowledgements and statistics up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from shoal.core.routing import Snapshot, Traffic
from shoal.proxy.wire import EnvoyEnd


class Gateways(Protocol):
    """All gateways of a fleet, as the controller sees them."""

    @property
    def live(self) -> tuple[str, ...]:
        """Names of the gateways that are connected now."""
        ...

    @property
    def agreed(self) -> bool:
        """Whether there is one, and the Envoy of each that is connected uses the newest snapshot, or refuses it."""
        ...

    @property
    def refusals(self) -> Mapping[str, str]:
        """By gateway: why it can't use the newest snapshot, in Envoy's words; it goes on with the last good one."""
        ...

    def push(self, snapshot: Snapshot) -> int:
        """Sends what differs from the last snapshot to every live gateway, and all of it to those that come later.
        Returns the snapshot's version."""
        ...

    async def wait_acknowledged(self, version: int, timeout_s: float = 5.0) -> tuple[str, ...]:
        """Waits until the Envoy of every gateway that is, or a moment ago was, connected uses this version or a later
        one. Returns who did not in time, a refusal being none the sooner: the drain barrier."""
        ...

    def traffic(self) -> Mapping[str, Traffic]:
        """The newest counts by agent, merged over the live gateways. The same object for an agent without change."""
        ...

    def take_ends(self) -> tuple[tuple[str, EnvoyEnd], ...]:
        """What was told since the last call: names of gateways, and of each an Envoy that ended by itself. One that
        calls again, or a controller that has just started, is told the last ones once more."""
        ...

    async def changed(self) -> None:
        """Returns when statistics, held requests, refusals, ends or the live gateways have changed since the
        last call, or all have agreed."""
        ...
