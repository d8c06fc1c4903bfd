"""Where processes listen, and who listens on a port: asked only when somebody has to be told what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import psutil


def listening_ports(pids: Iterable[int]) -> tuple[int, ...]:
    """The TCP ports on which the processes listen, in order."""
    ports: set[int] = set()
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            ports.update(
                connection.laddr.port
                for connection in psutil.Process(pid).net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN and connection.laddr
            )
    return tuple(sorted(ports))


def listener_on(port: int) -> str:
    """Who listens on the port, as `name (pid 123)`; empty if that can't be seen, as of another user's process."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or connection.laddr.port != port:
                continue
            if connection.pid is not None:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
