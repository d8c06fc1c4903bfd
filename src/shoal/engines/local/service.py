"""A process of Shoal's own that outlives its controller: the gateway, the broker.

Found again by its identity, as replicas are; unlike them it is started anew when somebody looks, not by a task, so
that nothing has to run for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from shoal.engines.local.launch import read_exit
from shoal.engines.local.layout import make_private, read_if_there, set_aside, write_whole
from shoal.engines.local.logs import LogPair
from shoal.engines.local.process import (
    Identity,
    find_leader,
    is_alive,
    kill_group,
    kill_remnants,
    reap,
    spawn,
    wait_gone,
)
from shoal.engines.local.render import exit_reason, led_argv, render_leader
from shoal.errors import EngineError

_LOG_BYTES = 10 * 1024 * 1024
_LOGS_KEPT = 3
_LOOK_S = 0.02
_KILL_S = 2.0
_YOUNG_S = 1.0
_RESEND_AFTER_S = 0.2


@dataclass(frozen=True, slots=True)
class _Noted:
    argv: tuple[str, ...]
    process: Identity


_NOTED = TypeAdapter(_Noted)


class Service:
    """`directory` holds its manifest, its exit status, its logs, and what it keeps itself. `keeps` is the name of the
    program that it starts to outlive it, if it does that; `died` is told how it ended, where it did so by itself, when
    that is found."""

    def __init__(
        self, name: str, directory: Path, *, keeps: str = "", died: Callable[[str], None] = lambda why: None
    ) -> None:
        self.name = name
        self._died = died
        self._keeps = keeps
        self.directory = directory
        self._noted = self._load()
        self._started_at = -math.inf  # by this object
        self._killed = False

    @property
    def alive(self) -> bool:
        """Whether it runs, whoever started it."""
        if self._noted is None:
            return False
        reap(self._noted.process.pid)
        try:
            return is_alive(self._noted.process)
        except OSError:  # nobody can tell: rather none than a second one
            return True

    @property
    def anything_alive(self) -> bool:
        """Whether it, or what it started to outlive it, runs."""
        return self.alive or bool(self._orphans())

    def is_running(self, argv: Sequence[str]) -> bool:
        """Whether it runs with this very command."""
        return self._noted is not None and self._noted.argv == tuple(argv) and self.alive

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts it; `argv[0]` is an absolute path. It must not run. Raises EngineError."""
        make_private(self.directory)
        self._tell_death()
        if self._noted is not None:
            kill_remnants(self._noted.process, self.name, just_ended=False)
        status = self._exit_path
        status.unlink(missing_ok=True)
        logs = self._logs()
        own = {**environment, "SHOAL_REPLICA": self.name}
        leader, plain = render_leader(argv[0], argv, own, status, self.directory)
        try:
            process = spawn(leader, plain, logs.stdout.path, logs.stderr.path)
        except OSError as error:
            raise EngineError(f"the {self.name}, {argv[0]}, can't be started: {error}") from error
        self._noted = _Noted(tuple(argv), process)
        self._started_at = time.monotonic()
        self._killed = False
        write_whole(self._manifest, _NOTED.dump_json(self._noted))

    def signal(self, number: signal.Signals) -> None:
        """Sends to its process group, if it runs."""
        if self._noted is not None and self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._noted.process.pid, number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, SIGKILL after the grace period, then what is left of it; it takes little longer than that."""
        self._tell_death()
        if self._noted is not None:
            process = self._noted.process
            self.signal(signal.SIGTERM)
            if time.monotonic() - self._started_at < _YOUNG_S and not await self._has_ended(_RESEND_AFTER_S):
                # The leader may have taken the signal before it had a command to pass it to.
                self.signal(signal.SIGTERM)
            if not await self._has_ended(grace_s):
                await self.kill()
            if kill_remnants(process, self.name, just_ended=True):
                await wait_gone(process)
        deadline = time.monotonic() + _KILL_S
        while (left := self._orphans()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            await asyncio.sleep(_LOOK_S)  # they end a moment later, and are no children of ours
        self._manifest.unlink(missing_ok=True)
        self._noted = None

    async def kill(self) -> None:
        """SIGKILL, with no word to what it started to outlive it."""
        if self._noted is not None:
            kill_group(self._noted.process)
            await self._has_ended(_KILL_S)
            self._killed = True

    async def runs_or_is_gone(self) -> bool:
        """Whether it runs. Where it has ended, what is left of it is ended too: its ports are free only then."""
        if self.alive:
            return True
        noted, seen_alive = self._noted, self._started_at > -math.inf
        if noted is not None and kill_remnants(noted.process, self.name, just_ended=seen_alive):
            await wait_gone(noted.process)
        return False

    def look_at_logs(self, now: float) -> None:
        """Keeps its logs small; not for the event loop, as a large one is copied."""
        if self._noted is not None:
            self._logs().look(now, _LOG_BYTES, _LOGS_KEPT)

    def failure(self) -> EngineError:
        """Why it does not run, with what it wrote last."""
        lines = "\n".join(f"  {line}" for line in self._logs().last_lines(0, 0, 5))
        said = f"; it wrote last:\n{lines}" if lines else ""
        return EngineError(f"the {self.name} ended: {exit_reason(read_exit(self._exit_path))}{said}")

    def _tell_death(self) -> None:
        if self._noted is not None and not self._killed and not self.alive:
            self._died(f"the {self.name} ended by itself: {exit_reason(read_exit(self._exit_path))}")

    @property
    def _manifest(self) -> Path:
        return self.directory / "process.json"

    @property
    def _exit_path(self) -> Path:
        return self.directory / "exit"

    def _logs(self) -> LogPair:
        return LogPair(self.directory / "logs")

    async def _has_ended(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while self.alive:  # after a restart of the controller it is no child of ours, so that nothing tells
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    def _orphans(self) -> list[psutil.Process]:
        """What it started in sessions of their own, to outlive it: told by the program and by this directory."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter() if self._keeps else ():
            with contextlib.suppress(psutil.Error):
                if process.name() == self._keeps and any(str(self.directory) in word for word in process.cmdline()):
                    found.append(process)
        return found

    def _load(self) -> _Noted | None:
        content = read_if_there(self._manifest)
        if content is None and not self.directory.is_dir():
            return None
        if content is not None:
            try:
                return _NOTED.validate_json(content)
            except ValidationError:
                set_aside(self._manifest, time.time())
        process = find_leader(self._exit_path)  # a controller may have died between the start and the note of it
        with contextlib.suppress(psutil.Error):
            return None if process is None else _Noted(led_argv(psutil.Process(process.pid).cmdline()), process)
        return None
