"""A port for each replica.

Taken from below the range that the kernel hands out to outgoing connections, so that no connection of anybody can come
between the choice and the replica's own bind; what is left to chance is another server that is told the same port in
those milliseconds, and then the replica starts again with another.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from shoal.errors import EngineError

_FIRST = 18000
_LAST = 32767
_TRIES = 2000


class Ports:
    """Ports in use by this engine's replicas; the rest is asked of the kernel."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._random = random.SystemRandom()
        self._last = max(_FIRST + 1000, min(_LAST, _ephemeral_first() - 1))

    def take(self) -> int:
        """A port that is free on all addresses. Raises EngineError if there seems to be none."""
        for _ in range(_TRIES):
            port = self._random.randint(_FIRST, self._last)
            if port not in self._taken and is_free(port):
                self._taken.add(port)
                return port
        raise EngineError(f"no free port between {_FIRST} and {self._last}; stop something that listens there")

    def adopt(self, port: int) -> None:
        """Notes a port that a replica has already."""
        self._taken.add(port)

    def release(self, port: int) -> None:
        """Gives it back."""
        self._taken.discard(port)


def is_free(port: int, host: str = "") -> bool:
    """Whether one could listen there now (the empty host stands for every IPv4 address)."""
    return refused_bind(port, host) is None


def refused_bind(port: int, host: str) -> OSError | None:
    """Why nobody could listen there now: EADDRINUSE, EADDRNOTAVAIL where the machine has no such address, EACCES."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: without it a port is refused for a minute after its last connection.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def _ephemeral_first() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32768
