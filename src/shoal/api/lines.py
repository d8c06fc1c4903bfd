"""How the controller is reached: by its Unix socket on this machine, or by TLS from anywhere.

A line opens connections and says in words why there is none; what is said over them is the client's.
"""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shoal.errors import ControllerUnavailable, ShoalError
from shoal.http1 import HEAD_LIMIT_BYTES, Headers, ProtocolError, Streams

if TYPE_CHECKING:
    import aiohttp


@dataclass(frozen=True, slots=True)
class Preface:
    """What comes before each request's own path, and its headers."""

    path: str = ""
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class WebRoute:
    """How aiohttp reaches the same controller, for what http1 does not speak; `proxy` is the URL of one in between."""

    url: str
    connector: aiohttp.BaseConnector
    server_name: str | None = None
    preface: Preface = Preface()
    proxy: str | None = None


class Line(Protocol):
    async def open(self) -> Streams:
        """A new connection. Raises OSError, or a ShoalError that says more."""
        ...

    async def preface(self) -> Preface:
        """Raises what `open` does."""
        ...

    async def route(self) -> WebRoute:
        """Raises what `open` does."""
        ...

    def refused(self, status: int, body: bytes) -> ShoalError | None:
        """The error for an answer of who stands between; `None` where the controller's own."""
        ...

    def absent(self, error: OSError | ProtocolError) -> ShoalError:
        """In words, why it can't be opened, or that it was cut."""
        ...

    def late(self, waited_s: float) -> ShoalError:
        """In words, that the controller took the request and does not answer."""
        ...


class SocketLine:
    """To the controller that listens on a Unix socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def open(self) -> Streams:
        check_socket_directory(self._socket)
        return await asyncio.open_unix_connection(self._socket, limit=HEAD_LIMIT_BYTES)

    async def preface(self) -> Preface:
        return Preface()

    def refused(self, status: int, body: bytes) -> ShoalError | None:
        return None

    async def route(self) -> WebRoute:
        import aiohttp  # noqa: PLC0415 - takes as long as most commands in all

        check_socket_directory(self._socket)
        return WebRoute("http://controller", aiohttp.UnixConnector(str(self._socket)))

    def absent(self, error: OSError | ProtocolError) -> ShoalError:
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return ControllerUnavailable(
                f"no controller answers on {self._socket}; start the fleet with `shoal up`, or `shoal up -d` to leave "
                "it in the background"
            )
        if isinstance(error, PermissionError):
            return ControllerUnavailable(f"{self._socket} may not be opened; it belongs to another user")
        if isinstance(error, (ProtocolError, ConnectionError)):
            return ControllerUnavailable(
                f"the controller on {self._socket} went away in the middle of an answer; `shoal up` starts it again"
            )
        return ControllerUnavailable(f"{self._socket} can't be opened: {error.strerror or error}")

    def late(self, waited_s: float) -> ShoalError:
        return ControllerUnavailable(
            f"the controller on {self._socket} took the request, but did not answer within {waited_s:g}s; "
            f"see {self._socket.parent / 'controller.log'}"
        )


def check_socket_directory(socket: Path) -> None:
    """Refuse a socket's directory that another user could have put there (one under /tmp can be anybody's)."""
    entry = socket.parent.lstat()
    if not stat.S_ISDIR(entry.st_mode) or entry.st_uid != os.getuid():
        raise ControllerUnavailable(
            f"{socket.parent} does not belong to you, so its socket can't be trusted; let its owner do this, or let "
            "SHOAL_HOME name a short path of your own"
        )


def make_socket_directory(socket: Path) -> None:
    """Make the directory that the controller's socket goes into, for its owner alone."""
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_socket_directory(socket)
