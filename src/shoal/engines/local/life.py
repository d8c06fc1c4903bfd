"""What the lives of replicas and of runs have in common: a process group that is started, watched and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from shoal.core.action import EnsureRevision
from shoal.core.observed import Phase
from shoal.engines.local.census import Member, render_mark
from shoal.engines.local.instant import Instant
from shoal.engines.local.launch import Launch, exit_path, read_exit, start
from shoal.engines.local.layout import make_private
from shoal.engines.local.logs import LogPair
from shoal.engines.local.machine import Machine
from shoal.engines.local.process import Identity, Process, boot_id, find_leader, identify, is_alive
from shoal.engines.local.render import unmet_placement
from shoal.engines.local.state import ReplicaState, RunState, Start, store_life

_LOGGER = logging.getLogger("shoal.engines.local")
_RESEND_WITHIN_S = 1.0
_RESEND_AFTER_S = 0.2
_CLEARED_WITHIN_S = 5.0


class Life:
    """One replica or run. A subclass tells its story in `run`, as the only task that changes it; `stop` and the
    process's end only wake it.

    `changed` is called when what is observed of it has changed.
    """

    def __init__(
        self,
        machine: Machine,
        state: ReplicaState | RunState,
        revision: EnsureRevision,
        changed: Callable[[], None],
    ) -> None:
        self.revision = revision
        self.stopping = False
        self.logs = LogPair(machine.layout.logs(state.agent, state.id))
        self._machine = machine
        self._life = state
        self._changed = changed
        self._wake = asyncio.Event()
        self._process: Process | None = None
        self._excess = ""  # what it was killed for, having had too much
        self._leftovers = False  # an earlier controller's start may have left something
        self._directory = make_private(machine.layout.life(state.agent, state.id))
        if state.gpus:
            machine.gpus.adopt(state.id, state.gpus)

    def wake(self) -> None:
        """Something that this life may wait for has happened."""
        self._wake.set()

    def close(self) -> None:
        """Stops watching; the process lives on for the next controller."""
        if self._process is not None:
            self._process.close()

    @property
    def id(self) -> str:
        return self._life.id

    @property
    def directory(self) -> Path:
        """What its processes' mark names."""
        return self._directory

    @property
    def session(self) -> int | None:
        """The session of its leader while that runs."""
        return self._process.identity.pid if self._process is not None and self._process.alive else None

    @property
    def gpus(self) -> tuple[str, ...]:
        """The devices that it has for itself."""
        return self._life.gpus

    @property
    def memory_limit_bytes(self) -> int | None:
        return self.revision.template.resources.memory_bytes

    def evict(self, excess: str, members: Iterable[Member]) -> None:
        """Kills it at once for having had too much; what comes after is as if it had ended by itself."""
        if not self._excess and not self.stopping and self._running:
            self._excess = excess
            if self._process is not None:
                self._process.signal_group(signal.SIGKILL)
            _kill(members)

    @property
    def grace_s(self) -> float:
        return self.revision.template.stop_grace_period_s

    @property
    def _running(self) -> bool:
        return self._process is not None and self._process.alive

    def _save(self) -> None:
        try:
            store_life(self._directory / "state.json", self._life)
        except OSError as error:  # a full disk: the replica matters more than our note of it
            _LOGGER.warning("%s: its state was not stored: %s", self._life.id, error)
        self._changed()

    def _begin(self, port: int | None, ordinal: int | None) -> None:
        """Starts the process. Raises EngineError."""
        number = self._life.start.number + 1 if self._life.start is not None else 1
        launch = Launch(
            id=self._life.id,
            template=self.revision.template,
            added=self.revision.environment,
            number=number,
            ordinal=ordinal,
            port=port,
            gpus=self._life.gpus,
            mark=render_mark(self._life.kind, self._life.revision, self._directory),
        )
        if self._life.start is not None:
            exit_path(self._machine, self._life.agent, self._life.id, self._life.start.number).unlink(missing_ok=True)
        self._life.start = Start(
            number,
            at=self._machine.clock(),
            began=self._machine.now,
            stdout_from=self.logs.stdout.size,
            stderr_from=self.logs.stderr.size,
        )
        self._excess = ""
        store_life(self._directory / "state.json", self._life)  # first the intent: no start is ever unknown
        self._life.start.process = start(self._machine, launch, self.logs)
        self._attach(self._life.start.process)

    def _attach(self, identity: Identity) -> None:
        self._process = Process(identity, self.wake)

    def _exit_of(self, begun: Start) -> int | None:
        """How a start that is over ended: by its file, or, on a full disk, as its leader told whoever started it."""
        stored = read_exit(exit_path(self._machine, self._life.agent, self._life.id, begun.number))
        return stored if stored is not None or self._process is None else self._process.exit_code

    def _age_s(self) -> float:
        """Seconds since its last start."""
        begun = self._life.start
        return 0.0 if begun is None or begun.began is None else begun.began.age_s(self._machine.now)

    async def _sleep(self, seconds: float | None) -> None:
        """Until woken, or so long."""
        if seconds is None or seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
        self._wake.clear()

    async def _wait_until(self, due: Instant | None, give_up: Callable[[], bool]) -> None:
        """Until then, for ever without one, or until `give_up` holds after a wake."""
        while not give_up() and (left := math.inf if due is None else due.left_s(self._machine.now)) > 0:
            await self._sleep(None if math.isinf(left) else left)

    async def _end_process(self, stop_due: Instant) -> None:
        """SIGTERM was sent: waits until the instant, then SIGKILL, and until nothing of it is left."""
        process = self._process
        if process is None:
            return
        if self._age_s() < _RESEND_WITHIN_S:
            # The leader may have taken the signal before it had a command to pass it to.
            resend = self._machine.now.after(min(_RESEND_AFTER_S, stop_due.left_s(self._machine.now)))
            await self._wait_until(resend, lambda: not process.alive)
            process.signal_group(signal.SIGTERM)
        await self._wait_until(stop_due, lambda: not process.alive)
        while process.alive:
            process.signal_group(signal.SIGKILL)
            await self._sleep(1.0)
        await self._clear_away()

    async def _clear_away(self) -> None:
        """Kills whatever is left of it, wherever it went, and waits until that is gone: its ports are free only then,
        and its volumes nobody's. What SIGKILL does not end within seconds hangs in the kernel: it is left behind, save
        that an identity is given to no other holder before it is gone."""
        self._leftovers = False
        deadline = time.monotonic() + _CLEARED_WITHIN_S
        while members := (await self._machine.census.look()).family(self._directory, self._own_session()):
            _kill(members)
            if time.monotonic() > deadline:
                pids = ", ".join(str(member.pid) for member in members)
                if not isinstance(self._life, ReplicaState) or self._life.ordinal is None:
                    _LOGGER.warning("%s: can't be killed, left behind: pid %s", self._life.id, pids)
                    return
                reason = f"can't be killed: pid {pids}; ordinal {self._life.ordinal} is free when that has ended"
                if self._life.reason != reason:
                    _LOGGER.warning("%s: %s", self._life.id, reason)
                    self._life.reason = reason
                    self._save()
            await asyncio.sleep(0.01 if time.monotonic() < deadline else 1.0)

    def _own_session(self) -> int | None:
        """The last leader's session, unless its pid is another's now: members keep its number from being used again."""
        process = None if self._life.start is None else self._life.start.process
        if process is None or process.boot != boot_id():
            return None
        try:
            found = identify(process.pid)
        except OSError:
            return None
        return process.pid if found is None or found == process else None

    async def _wait_for_a_place(self) -> None:
        """Until the placement, the GPUs and the others of the agent allow it; PENDING with the reason meanwhile."""
        while not self.stopping and (reason := self._obstacle()) is not None:
            if (self._life.phase, self._life.reason) != (Phase.PENDING, reason):
                self._life.phase, self._life.reason = Phase.PENDING, reason
                self._save()
            await self._sleep(None)

    def _obstacle(self) -> str | None:
        template, gpus = self.revision.template, self._machine.gpus
        reason = unmet_placement(template, self._machine.labels) or self._waits_for()
        wanted = template.resources.gpu
        if reason is None and len(self._life.gpus) < wanted:
            taken = gpus.take(self._life.id, wanted)
            if taken is None:
                return gpus.shortage(wanted)
            self._life.gpus = taken
        return reason

    def _waits_for(self) -> str | None:
        """Why others keep it from starting; `None` if nobody does."""
        return None

    def _adopt_process(self) -> bool:
        """Takes over what an earlier controller started; true if it runs."""
        begun = self._life.start
        if begun is None:
            return False
        if begun.process is None:  # that controller died between the intent and the note of it
            begun.process = find_leader(exit_path(self._machine, self._life.agent, self._life.id, begun.number))
            if begun.process is None:
                self._leftovers = True
                return False
            self._life.phase, self._life.started_at = Phase.RUNNING, begun.at
        if self._life.phase in {Phase.PENDING, Phase.BACKOFF} or not _may_live(begun.process):
            self._leftovers = begun.process.boot == boot_id()
            return False
        self._attach(begun.process)
        return True


def _kill(members: Iterable[Member]) -> None:
    for member in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member.pid, signal.SIGKILL)


def _may_live(identity: Identity) -> bool:
    """Whether it has to be taken for running; one of which nobody can tell is watched until somebody can."""
    try:
        return is_alive(identity)
    except OSError:
        return True
