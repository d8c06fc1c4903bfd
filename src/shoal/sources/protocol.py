"""The port of a source of samples: three methods at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from shoal.core.signals import Reading


class Source(Protocol):
    """Reads one metric for many things at once."""

    async def read(self) -> Mapping[str, Reading]:
        """By queue or agent. What could not be read is absent; raises BrokerError when nothing could be."""
        ...

    async def close(self) -> None: ...
