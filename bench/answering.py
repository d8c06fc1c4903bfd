"""Who answers: requests to `/who` one after the other, and when a replica's name came back for the first time."""

from __future__ import annotations

import socket
import threading
import time
from http.client import HTTPConnection, HTTPException

_EVERY_S = 0.005


def ask_once(port: int, path: str, timeout_s: float = 60.0) -> tuple[str, float]:
    """The name of the replica that answered, and how long the answer took, the connection included."""
    began = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        took = time.perf_counter() - began
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"{path} was answered with {answer.status}")
    return answer.headers["X-Replica"], took


class Asker(threading.Thread):
    """Asks until told to stop; `first_seen` has the epoch second of each replica's first answer."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(daemon=True)
        self.first_seen: dict[str, float] = {}
        self.failures = 0
        self._port, self._path = port, path
        self._stop_asking = threading.Event()

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10.0)
        while not self._stop_asking.wait(_EVERY_S):
            try:
                connection.request("GET", self._path)
                answer = connection.getresponse()
                answer.read()
            except (OSError, HTTPException):
                self.failures += 1
                connection.close()
                continue
            if connection.sock is not None:
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.failures += answer.status != 200
            self.first_seen.setdefault(answer.headers.get("X-Replica") or "?", time.time())

    def stop(self) -> None:
        """Returns when it has stopped."""
        self._stop_asking.set()
        self.join(15.0)
