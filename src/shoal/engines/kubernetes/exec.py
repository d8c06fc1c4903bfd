"""A command in a container, by the API server's WebSocket of `exec`.

Binary messages: a byte that names the channel (0 input, 1 output, 2 errors, 3 how it ended, 4 the terminal's size),
then its content; 255 and a channel closes that.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import aiohttp

from shoal.engines.kubernetes.api import Kubernetes, KubernetesError
from shoal.engines.kubernetes.api.kinds import POD
from shoal.errors import EngineError

_PROTOCOL = "v5.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _END, _SIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_PIECE_BYTES = 1 << 16
_NOT_STARTED = re.compile(r"unable to start container process: (.*)")  # what runc and crun say


@contextlib.asynccontextmanager
async def open_command(
    kubernetes: Kubernetes, pod: str, container: str, argv: Sequence[str], *, tty: bool
) -> AsyncGenerator[PodCommand]:
    """Raises EngineError where it is refused."""
    params = [("container", container), ("stdin", "true"), ("stdout", "true"), ("tty", str(tty).lower())]
    params += [("stderr", str(not tty).lower()), *(("command", word) for word in argv)]
    path = POD.path(kubernetes.namespace, pod, "exec")
    async with kubernetes.websocket(path, params, _PROTOCOL) as socket:
        if socket.protocol != _PROTOCOL:
            raise EngineError(
                f"the API server speaks {socket.protocol or 'no protocol'} for exec, expected {_PROTOCOL}: Kubernetes "
                "1.30 or newer does"
            )
        yield PodCommand(socket)


class PodCommand:
    """Implements `Command`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._exit_code: int | None = None

    async def output(self) -> AsyncGenerator[tuple[str, bytes]]:
        """Raises EngineError where the connection is lost before the command's end."""
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, content = message.data[0], message.data[1:]
            if channel in (_STDOUT, _STDERR) and content:
                yield ("stdout" if channel == _STDOUT else "stderr"), content
            elif channel == _END:
                self._exit_code, why = read_end(json.loads(content))
                if why:
                    yield "stderr", f"{why}\n".encode()
                return
        raise EngineError("the connection to the command was lost; it may have ended, and it may go on")

    async def write(self, content: bytes) -> None:
        for start in range(0, len(content), _PIECE_BYTES):
            await self._send(bytes([_STDIN]) + content[start : start + _PIECE_BYTES])

    async def end_input(self) -> None:
        await self._send(bytes([_CLOSE, _STDIN]))

    async def resize(self, rows: int, columns: int) -> None:
        await self._send(bytes([_SIZE]) + json.dumps({"Width": columns, "Height": rows}).encode())

    async def exit_code(self) -> int | None:
        return self._exit_code

    def close(self) -> None:
        """The socket is closed by who opened it."""

    async def _send(self, message: bytes) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # it has ended, which `output` tells
            await self._socket.send_bytes(message)


def read_end(status: Mapping[str, Any]) -> tuple[int, str]:
    """The exit code by the API's Status, as a shell has it of a program that can't be started, and then the reason.
    Raises KubernetesError where nobody tried."""
    if status.get("status") == "Success":
        return 0, ""
    details: Mapping[str, Any] = status.get("details") or {}
    causes: Sequence[Mapping[str, str]] = details.get("causes") or []
    for cause in causes:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"]), ""
    said = str(status.get("message") or "the API server gives no reason")
    if (found := _NOT_STARTED.search(said)) is not None:
        return 126 if "permission denied" in found[1] else 127, found[1]
    raise KubernetesError(f"the command was not started: {said}", status=500, reason="", said=said)
