"""The Engine API of a node, over its socket: what the bed needs of it, synchronous and without a library."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.commands import BedError
from testbed.swarm.bed import Node


class Refused(BedError):
    """The daemon's own words."""


class NoAnswer(BedError):
    """A daemon isn't there, or not there yet."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(
    node: Node,
    method: str,
    path: str,
    body: object = None,
    *,
    archive: Path | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> Any:
    """One request; the JSON of the answer, None where it is something else.

    Raises Refused, and NoAnswer where no daemon answers.
    """
    connection = _UnixConnection(node.socket, timeout_s)
    try:
        if archive is not None:
            with archive.open("rb") as file:
                about = {"Content-Type": "application/x-tar", "Content-Length": str(archive.stat().st_size)}
                connection.request(method, path, file, {**about, **(headers or {})})
                status, data = _answer(connection)
        else:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            status, data = _answer(connection)
    except (OSError, http.client.HTTPException) as error:
        why = f"{node.name}: its Docker does not answer ({error}); see {node.directory}/dockerd.log"
        raise NoAnswer(f"{why}; what is missing of a bed is started by: python -m testbed.swarm up") from error
    finally:
        connection.close()
    failed_midway = b'"errorDetail"' in data  # how a push or a load tells, after it said 200
    if status >= http.HTTPStatus.BAD_REQUEST or failed_midway:
        raise Refused(f"{node.name}: {method} {path}: {status} {data[:600].decode(errors='replace').strip()}")
    try:
        return json.loads(data)
    except ValueError:
        return None


def _answer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    response = connection.getresponse()
    return response.status, response.read()


def answers(node: Node) -> bool:
    """Whether its daemon does."""
    try:
        call(node, "GET", "/_ping", timeout_s=5)
    except (NoAnswer, Refused):
        return False
    return True
