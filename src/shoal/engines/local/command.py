"""A command that a person runs where a replica runs: with the environment and the directory of its leader.

A shell starts it, and it takes the shell's place: so one that is not there ends by 127 with a word on stderr, as it
does in a container. It heads a session of its own; with a terminal the shell opens that, since a terminal becomes the
session's by being opened. What it left running when it ended goes on, as in a container, until the replica ends.
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
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import psutil

from shoal.engines.local.process import session_members
from shoal.engines.local.render import MOST_FILES
from shoal.errors import EngineError

_PIECE_BYTES = 64 * 1024
_ENDS_WITHIN_S = 1.0  # once its outputs are closed, or it was hung up on
_START = f'ulimit -n {MOST_FILES} 2>/dev/null; exec "$@"'
_START_ON_TERMINAL = f'exec <"$0" >"$0" 2>&1; {_START}'


class LocalCommand:
    """A process and our ends of its streams, none of which blocks: `outputs` by stream; `master` is its terminal's,
    which is all of them."""

    def __init__(
        self, process: asyncio.subprocess.Process, stdin: int | None, outputs: Mapping[str, int], master: int | None
    ) -> None:
        self._process = process
        self._stdin, self._outputs, self._master = stdin, outputs, master
        self._pieces: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(16)

    async def output(self) -> AsyncGenerator[tuple[str, bytes]]:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read_all())
            try:
                with contextlib.suppress(GeneratorExit):  # a group would make an error of it
                    while (piece := await self._pieces.get()) is not None:
                        yield piece
            finally:
                reading.cancel()

    async def write(self, content: bytes) -> None:
        while content and self._stdin is not None:
            try:
                content = content[os.write(self._stdin, content) :]
            except BlockingIOError:
                await _until(self._stdin, writable=True)
            except OSError:  # it reads no more: its outputs tell how it ends
                return

    async def end_input(self) -> None:
        if self._master is not None:
            await self.write(b"\x04")
        elif self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

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
        """Lets go of its streams."""
        for descriptor in {self._stdin, self._master, *self._outputs.values()}:
            if descriptor is not None:
                os.close(descriptor)
        self._stdin = self._master = None
        self._outputs = dict[str, int]()

    async def hang_up(self) -> None:
        """Ends one that still runs, as where a terminal is closed: it is asked, and then not asked any more. Who is
        cancelled meanwhile doesn't ask, but sees it end."""
        if self._process.returncode is not None:
            return
        self._signal(signal.SIGHUP)
        try:
            async with asyncio.timeout(_ENDS_WITHIN_S):
                await self._process.wait()
        except (TimeoutError, asyncio.CancelledError) as why:
            self._signal(signal.SIGKILL)
            await self._process.wait()
            if isinstance(why, asyncio.CancelledError):
                raise

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            for pid in session_members(self._process.pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)

    async def _read_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for stream, descriptor in self._outputs.items():
                tasks.create_task(self._read(stream, descriptor))
        await self._pieces.put(None)

    async def _read(self, stream: str, descriptor: int) -> None:
        """Until nobody has the other end open any more, which Linux tells of a terminal by EIO."""
        while True:
            try:
                piece = os.read(descriptor, _PIECE_BYTES)
            except BlockingIOError:
                await _until(descriptor, writable=False)
                continue
            except OSError:
                return
            if not piece:
                return
            await self._pieces.put((stream, piece))


@contextlib.asynccontextmanager
async def run_command(leader: int, argv: Sequence[str], *, tty: bool) -> AsyncGenerator[LocalCommand]:
    """One beside the processes of this leader, as long as the block lasts. Raises EngineError."""
    environment, directory = _surroundings(leader)
    if tty:
        environment.setdefault("TERM", "xterm")
    command = await _start(argv, environment, directory, tty=tty)
    try:
        yield command
    finally:
        command.close()
        await command.hang_up()


async def _start(argv: Sequence[str], environment: Mapping[str, str], directory: str, *, tty: bool) -> LocalCommand:
    ours: list[int] = []
    theirs: list[int] = []
    words = ["/bin/sh", "-c", _START, "sh"]
    if tty:
        master, end = pty.openpty()
        ours, theirs = [master], [end, end, end]
        words = ["/bin/sh", "-c", _START_ON_TERMINAL, os.ttyname(end)]
    else:
        (given, to_give), (output, written), (errors, complained) = os.pipe(), os.pipe(), os.pipe()
        ours, theirs = [to_give, output, errors], [given, written, complained]
    try:
        process = await asyncio.create_subprocess_exec(
            *words, *argv,
            stdin=theirs[0], stdout=theirs[1], stderr=theirs[2],
            env=environment, cwd=directory, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in a word
        for descriptor in ours:
            os.close(descriptor)
        raise EngineError(f"{argv[0]!r} can't be started: {error}") from error
    finally:
        for descriptor in set(theirs):
            os.close(descriptor)
    for descriptor in ours:
        os.set_blocking(descriptor, False)
    if tty:
        return LocalCommand(process, ours[0], {"stdout": ours[0]}, ours[0])
    return LocalCommand(process, ours[0], {"stdout": ours[1], "stderr": ours[2]}, None)


def _surroundings(leader: int) -> tuple[dict[str, str], str]:
    try:
        process = psutil.Process(leader)
        return process.environ(), process.cwd()
    except psutil.Error as error:
        raise EngineError(f"process {leader} can't be looked at, so nothing can be run beside it: {error}") from error


async def _until(descriptor: int, *, writable: bool) -> None:
    """Until it can be written to, or read from."""
    loop = asyncio.get_running_loop()
    able = loop.create_future()
    forget: Callable[[int], bool] = loop.remove_writer if writable else loop.remove_reader
    (loop.add_writer if writable else loop.add_reader)(descriptor, _note, able)
    try:
        await able
    finally:
        forget(descriptor)


def _note(able: asyncio.Future[None]) -> None:
    if not able.done():
        able.set_result(None)
