"""How long the agent of the scaling benches takes to serve, started alone: what no engine can beat."""

from __future__ import annotations

import socket
import sys
import time

from bench.live_fleet import HERE, free_port, process

AGENT = [sys.executable, str(HERE / "replica.py")]
_LOOK_S = 0.001
_PATIENCE_S = 30.0


def measure_own_start() -> float:
    """Seconds from just before the process is made to its first good answer on /healthz."""
    port = free_port()
    began = time.perf_counter()
    with process(AGENT, {"PORT": str(port)}):
        while not _is_healthy(port):
            if time.perf_counter() - began > _PATIENCE_S:
                raise TimeoutError(f"{AGENT} is not healthy after {_PATIENCE_S:g}s")
            time.sleep(_LOOK_S)
        return time.perf_counter() - began


def _is_healthy(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")
            return connection.recv(256).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
