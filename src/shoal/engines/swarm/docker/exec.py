"""A command within a container, with its input and outputs, over a hijacked connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from shoal.engines.swarm.docker.frames import FrameDecoder
from shoal.engines.swarm.docker.wire import Wire

_PIECE_BYTES = 64 * 1024
_EXIT_LOOKS, _EXIT_LOOK_S = 20, 0.05


class ExecSession:
    """A command that runs. With a terminal there is one output only, told as `stdout`."""

    def __init__(
        self, wire: Wire, exec_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, tty: bool
    ) -> None:
        self._wire = wire
        self._id = exec_id
        self._reader = reader
        self._writer = writer
        self._tty = tty

    async def output(self) -> AsyncGenerator[tuple[str, bytes]]:
        """What it writes, until it has closed its outputs: `stdout` or `stderr`, and a piece."""
        decoder = FrameDecoder()
        try:
            while received := await self._reader.read(_PIECE_BYTES):
                if self._tty:
                    yield "stdout", received
                    continue
                for frame in decoder.feed(received):
                    yield frame
        except OSError as error:
            raise self._wire.lost(error) from error

    async def write(self, content: bytes) -> None:
        """Gives it input; waits while it does not read."""
        try:
            self._writer.write(content)
            await self._writer.drain()
        except OSError as error:
            raise self._wire.lost(error) from error

    async def end_input(self) -> None:
        """Nothing more comes. A connection with TLS can't say that: there the command is told nothing."""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def resize(self, rows: int, columns: int) -> None:
        """The size of its terminal."""
        await self._wire.request("POST", f"/exec/{self._id}/resize", params={"h": rows, "w": columns})

    async def exit_code(self) -> int | None:
        """What it ended with; `None` where it goes on. Docker tells it a moment after the outputs are closed."""
        for _ in range(_EXIT_LOOKS):
            state = await self._wire.request("GET", f"/exec/{self._id}/json")
            if not state["Running"]:
                return state["ExitCode"]
            await asyncio.sleep(_EXIT_LOOK_S)
        return None

    def close(self) -> None:
        """Lets go of it; a command that runs goes on without."""
        self._writer.close()
