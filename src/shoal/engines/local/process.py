"""One supervised process group: started, found again by another controller, told to end, and its end noticed.

The group's first process is the leader (see `render.LEADER_SCRIPT`). A pid alone says nothing, as pids are used again:
a process is the one that we mean if it has the pid, the start time and the boot that were noted when it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from shoal.engines.local.census import has_ended
from shoal.engines.local.render import LEADER_NAME

_POLL_S = 0.2
_DEFAULT_SIGNALS = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGCHLD, signal.SIGXFSZ,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process. `started` is in the kernel's own count since boot, `boot` names that boot."""

    pid: int
    started: str
    boot: str


@cache
def boot_id() -> str:
    """A name for the time since the machine started; pids of another boot mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(int(psutil.boot_time()))


def identify(pid: int) -> Identity | None:
    """The identity of what has this pid now; `None` if nothing has, or only a zombie."""
    started = _start_time(pid)
    return None if started is None else Identity(pid, started, boot_id())


def is_alive(identity: Identity) -> bool:
    """Whether that very process still runs. Raises OSError where that can't be told, as with no descriptor left: who
    took it for ended would start a second one beside it."""
    return identity.boot == boot_id() and _start_time(identity.pid) == identity.started


def spawn(argv: Sequence[str], environment: Mapping[str, str], stdout: Path, stderr: Path) -> Identity:
    """Starts a session of its own that writes to the files by O_APPEND. Raises OSError.

    The child may have ended already: then its start time is unknown and it counts as ended.
    """
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    pid = os.posix_spawn(
        argv[0],
        tuple(argv),
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(stdout), append, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, str(stderr), append, 0o600),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=_DEFAULT_SIGNALS,
    )
    try:
        return identify(pid) or Identity(pid, "", boot_id())
    except OSError:  # a process that can't be told from others can't be watched; the pid is ours until it is reaped
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def find_leader(exit_path: Path) -> Identity | None:
    """The leader that was told to store its status there, for a start that was never noted; slow."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            words = process.cmdline()
            # The shell that becomes the command has these words too for a moment; only the leader heads a session.
            if LEADER_NAME in words and str(exit_path) in words and os.getsid(process.pid) == process.pid:
                return identify(process.pid)
    return None


class Process:
    """A live handle on a process group, ours by birth or adopted. `exited` is called once, in the event loop."""

    def __init__(self, identity: Identity, exited: Callable[[], None]) -> None:
        self.identity = identity
        self.alive = True
        self.exit_code: int | None = None  # the leader's own, where it ended as our child
        self._exited = exited
        self._loop = asyncio.get_running_loop()
        self._pidfd: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watch()

    def signal_group(self, number: signal.Signals) -> None:
        """Sends to the whole group; nothing happens once the leader is gone."""
        with contextlib.suppress(OSError):  # gone, or nobody can tell
            if self.alive and is_alive(self.identity):
                os.killpg(self.identity.pid, number)

    def close(self) -> None:
        """Stops watching; the process lives on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _watch(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.identity.pid)
        except (AttributeError, OSError):  # another system, no such process, or no descriptors left
            pass
        else:
            self._loop.add_reader(self._pidfd, self._end)
        # Where there is a pidfd, a single look: the pid may have been somebody else's already.
        self._timer = self._loop.call_later(0, self._poll)

    def _poll(self) -> None:
        self._timer = None
        try:
            alive = is_alive(self.identity)
        except OSError:  # nobody can tell now
            self._timer = self._loop.call_later(_POLL_S, self._poll)
            return
        if not alive:
            self._end()
        elif self._pidfd is None:
            self._timer = self._loop.call_later(_POLL_S, self._poll)

    def _end(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self.close()
        self.exit_code = reap(self.identity.pid)
        self._exited()


def kill_group(identity: Identity) -> None:
    """SIGKILL for a group that nobody watches, if it is still the one that was meant."""
    with contextlib.suppress(OSError):  # gone, or nobody can tell
        if is_alive(identity):
            os.killpg(identity.pid, signal.SIGKILL)


def reap(pid: int) -> int | None:
    """Takes the exit of a child of ours off the process table; what is no child of ours is somebody else's to reap.
    Its exit code, if it had one: a signal that ended a leader says nothing of the command."""
    with contextlib.suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended == pid and os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
    return None


def kill_remnants(identity: Identity, replica: str, *, just_ended: bool) -> bool:
    """Kills what a group whose leader is gone left behind; true if there was something.

    A session keeps its number from being used again, so: a process with the leader's pid is another's, and then
    nothing of ours is left. Unless the leader has ended under our eyes, members must also say that they belong to the
    replica.
    """
    try:
        if identity.boot != boot_id() or _start_time(identity.pid) is not None:
            return False
        members = session_members(identity.pid)
    except OSError:  # nobody can tell
        return False
    ours = [pid for pid in members if just_ended or _belongs(pid, replica)]
    for pid in ours:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(ours)


async def wait_gone(identity: Identity, within_s: float = 1.0) -> None:
    """Waits until the session has no process left, as their ports are free only then; gives up after `within_s`."""
    deadline = time.monotonic() + within_s
    # Nothing tells when processes end that are no children of ours.
    with contextlib.suppress(OSError):
        while session_members(identity.pid) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def session_members(session: int) -> list[int]:
    """The pids in a session, without what has ended and only waits to be reaped."""
    members: list[int] = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == session and _start_time(pid) is not None:
                members.append(pid)
    return members


def _belongs(pid: int, replica: str) -> bool:
    try:
        return psutil.Process(pid).environ().get("SHOAL_REPLICA") == replica
    except (psutil.Error, OSError):
        return False


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/<pid>/stat, or psutil's time elsewhere; `None` for what is not there or has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _start_time_by_psutil(pid)
    except ProcessLookupError:  # it ended while it was read
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may hold blanks and brackets
    return None if has_ended(fields) else fields[19].decode()


def _start_time_by_psutil(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except psutil.Error:
        return None
