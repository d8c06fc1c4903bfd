"""The controller's process, in a session of its own: neither a closed terminal nor Ctrl-C reaches it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal import __version__
from shoal.cli.output import say
from shoal.errors import ControllerUnavailable, ShoalError

if TYPE_CHECKING:
    from shoal.api.client import Client
    from shoal.api.views import StatusView

LOG_FILE = "controller.log"
LOCK_FILE = "controller.lock"
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
_POLL_S = 0.05
_LOG_TAIL_BYTES = 4000
_LOG_LIMIT_BYTES = 10 * 2**20


@dataclass(frozen=True, slots=True)
class StartedController:
    """See `shoal.cli.place.Started`: its process, and where in the log its words begin."""

    process: subprocess.Popen[bytes]
    log: Path
    log_from: int

    def hurry(self) -> None:
        from shoal.cli.local.hurry import kill_stopping

        kill_stopping(self.log.parent)

    async def ended(self) -> int | None:
        await wait_ended(self.log.parent, self)
        return self.process.poll()

    def last_words(self) -> str:
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_from, size - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()


def start_controller(directory: Path, fleet: str, without: Collection[str] = ()) -> StartedController:
    """Start the controller of the fleet whose state is in `directory`. `without` are variables that it must not have:
    it stays for long, and what it was started with can be read from it."""
    log = directory / LOG_FILE
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        log_from = os.lseek(handle, 0, os.SEEK_END)
        process = subprocess.Popen(
            # -P: what lies in the current directory is not to be imported instead of Shoal.
            [sys.executable, "-P", "-m", "shoal.api", "--directory", str(directory), "--fleet", fleet],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            cwd=directory,
            env={name: value for name, value in os.environ.items() if name not in without},
            start_new_session=True,
        )
    finally:
        os.close(handle)
    return StartedController(process, log, log_from)


async def answers(client: Client) -> bool:
    """Whether a controller is there."""
    try:
        await client.status()
    except ControllerUnavailable:
        return False
    return True


async def tell_or_start(
    client: Client, directory: Path, fleet: str, without: Collection[str] = ()
) -> StartedController | None:
    """Tell the controller of what is stored, or start one without these variables; gives what was started, `None` for
    one that was there, or was of another version and is replaced.

    Of several commands at once one starts it, and the others tell it. One that just ends, as a `down` is under way, is
    waited for. Raises ShoalError with the last words of a controller that could not start.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    started: StartedController | None = None
    replaced = waits = False
    while time.monotonic() < deadline:
        with contextlib.suppress(ControllerUnavailable):
            view = await client.status()
            if view.version != __version__ and not replaced and is_held(directory):
                replaced = True
                await _end_other_version(view, directory)
                continue
            try:
                await client.apply()
            except ControllerUnavailable:
                if not waits:
                    say(f"The controller of {fleet} is just ending; another one is started after it ...")
                waits = True
                raise
            ours = started is not None and started.process.pid == view.controller_pid and not replaced
            return started if ours else None
        if started is not None and started.process.poll() is not None:
            if not is_held(directory):
                raise _could_not_start(started)
            started = None  # another one was quicker
        if started is None and not is_held(directory):
            say(f"Starting the controller of {fleet} ...")
            started = start_controller(directory, fleet, without)
        await asyncio.sleep(_POLL_S)
    raise _does_not_answer(directory, started)


async def _end_other_version(view: StatusView, directory: Path) -> None:
    """Ends a controller that may not read what this version stores. What runs goes on, and the next one takes it up.
    Raises ShoalError."""
    whose = f"Shoal {view.version}" if view.version else "an earlier Shoal"
    say(f"The controller is of {whose}; one of {__version__} takes its place, and what runs goes on.")
    with contextlib.suppress(ProcessLookupError):
        os.kill(view.controller_pid, signal.SIGTERM)
    if not await wait_ended(directory):
        raise ShoalError(f"the controller of {whose} (process {view.controller_pid}) does not end; end it by hand")


async def wait_answers(client: Client, started: StartedController) -> None:
    """Until the new controller answers. Raises ShoalError with its last words where it ends instead."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not await answers(client):
        if started.process.poll() is not None:
            raise _could_not_start(started)
        if time.monotonic() > deadline:
            raise _does_not_answer(started.log.parent, started)
        await asyncio.sleep(_POLL_S)


def _could_not_start(started: StartedController) -> ShoalError:
    return ShoalError(
        f"the controller could not start (exit code {started.process.returncode}):\n{started.last_words()}\n"
        "`shoal doctor` looks for the usual causes"
    )


def _does_not_answer(directory: Path, started: StartedController | None) -> ControllerUnavailable:
    who = f"the controller (process {started.process.pid})" if started is not None else "the controller that runs"
    return ControllerUnavailable(f"{who} does not answer after {START_TIMEOUT_S:g}s; see {directory / LOG_FILE}")


async def wait_ended(directory: Path, started: StartedController | None = None) -> bool:
    """Until no controller holds the fleet, so that the next one can; false if it takes too long."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        # A child of ours lets go of the lock a moment before its exit code can be had.
        if not is_held(directory) and (started is None or started.process.poll() is not None):
            return True
        await asyncio.sleep(_POLL_S)
    return False


def remove_sockets(directory: Path) -> None:
    """After everything ended: what stood in for sockets whose own path is too long."""
    from shoal.proxy.sockets import remove_stand_in

    if not is_held(directory):  # nobody was quick to start it again
        for each in (directory, directory / "platform" / "gateway"):
            remove_stand_in(each)


def is_held(directory: Path) -> bool:
    """Whether a controller holds the fleet, answering or not: the kernel lets go of its lock however it ends.

    Raises ShoalError where the state is somebody else's.
    """
    try:
        handle = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ShoalError(
            f"{directory / LOCK_FILE} can't be opened: {error.strerror or error}; expected a file of the user who "
            "started the fleet (SHOAL_HOME names another place for yours)"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
