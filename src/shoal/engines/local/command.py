"""A command that a person runs where a replica runs: with the environment and the directory of its leader.

A shell starts it, and it takes the shell's place: so one that is not there ends by 127 with a word on stderr, as it
does in a container. With a terminal it heads a session on one of its own, which the shell opens, since a terminal
becomes the session's by being opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncGenerator, Sequence

import psutil

from shoal.engines.local.render import MOST_FILES
from shoal.errors import EngineError

_PIECE_BYTES = 64 * 1024
_ENDS_WITHIN_S = 1.0  # once its outputs are closed
_START = f'ulimit -n {MOST_FILES} 2>/dev/null; exec "$@"'
_START_ON_TERMINAL = f'exec <"$0" >"$0" 2>&1; {_START}'


class LocalCommand:
    """A process; `master` is its terminal's other end, where it has one."""

    def __init__(self, process: asyncio.subprocess.Process, master: int | None) -> None:
        self._process = process
        self._master = master
        self._outputs: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(16)

    async def output(self) -> AsyncGenerator[tuple[str, bytes]]:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read_all())
            try:
                with contextlib.suppress(GeneratorExit):  # a group would make an error of it
                    while (piece := await self._outputs.get()) is not None:
                        yield piece
            finally:
                reading.cancel()

    async def write(self, content: bytes) -> None:
        if self._master is not None:
            await asyncio.to_thread(_write_all, self._master, content)
        elif self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(content)
            with contextlib.suppress(ConnectionError):  # it reads no more: its outputs tell how it ends
                await self._process.stdin.drain()

    async def end_input(self) -> None:
        if self._master is not None:
            await self.write(b"\x04")
        elif self._process.stdin is not None:
            self._process.stdin.close()

    async def resize(self, rows: int, columns: int) -> None:
        if self._master is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def exit_code(self) -> int | None:
        try:
            async with asyncio.timeout(_ENDS_WITHIN_S):
                code = await self._process.wait()
        except TimeoutError:
            return None
        return 128 - code if code < 0 else code

    def close(self) -> None:
        """What still runs is hung up on, as where a terminal is closed."""
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGHUP)

    async def _read_all(self) -> None:
        if self._master is not None:
            await self._read_terminal(self._master)
        else:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read("stdout", self._process.stdout))
                tasks.create_task(self._read("stderr", self._process.stderr))
        await self._outputs.put(None)

    async def _read(self, stream: str, reader: asyncio.StreamReader | None) -> None:
        assert reader is not None
        while piece := await reader.read(_PIECE_BYTES):
            await self._outputs.put((stream, piece))

    async def _read_terminal(self, master: int) -> None:
        """Until nobody has the terminal open any more, which Linux tells by EIO."""
        loop = asyncio.get_running_loop()
        while True:
            readable = loop.create_future()
            loop.add_reader(master, _note, readable)
            try:
                await readable
            finally:
                loop.remove_reader(master)
            try:
                piece = os.read(master, _PIECE_BYTES)
            except OSError:
                return
            if not piece:
                return
            await self._outputs.put(("stdout", piece))


@contextlib.asynccontextmanager
async def run_command(leader: int, argv: Sequence[str], *, tty: bool) -> AsyncGenerator[LocalCommand]:
    """One beside the processes of this leader, as long as the block lasts. Raises EngineError."""
    environment, directory = _surroundings(leader)
    if tty:
        environment.setdefault("TERM", "xterm")
    with contextlib.ExitStack() as descriptors:
        master, end = None, asyncio.subprocess.PIPE
        words = ["/bin/sh", "-c", _START, "sh"]
        if tty:
            master, end = pty.openpty()
            descriptors.callback(os.close, master)
            words = ["/bin/sh", "-c", _START_ON_TERMINAL, os.ttyname(end)]
        try:
            process = await asyncio.create_subprocess_exec(
                *words, *argv,
                stdin=end, stdout=end, stderr=end, env=environment, cwd=directory, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in a word
            raise EngineError(f"{argv[0]!r} can't be started: {error}") from error
        finally:
            if tty:
                os.close(end)
        command = LocalCommand(process, master)
        try:
            yield command
        finally:
            command.close()


def _surroundings(leader: int) -> tuple[dict[str, str], str]:
    try:
        process = psutil.Process(leader)
        return process.environ(), process.cwd()
    except psutil.Error as error:
        raise EngineError(f"process {leader} can't be looked at, so nothing can be run beside it: {error}") from error


def _note(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _write_all(descriptor: int, content: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody has the terminal open any more
        while content:
            content = content[os.write(descriptor, content) :]
