"""What the lives of replicas and of runs have in common: a process group that is started, watched and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
from collections.abc import Callable

from shoal.core.action import EnsureRevision
from shoal.core.observed import Phase
from shoal.engines.local.launch import Launch, exit_path, read_exit, start
from shoal.engines.local.layout import make_private
from shoal.engines.local.logs import LogPair
from shoal.engines.local.machine import Machine
from shoal.engines.local.process import Identity, Process, find_leader, is_alive, kill_remnants, wait_gone
from shoal.engines.local.render import unmet_placement
from shoal.engines.local.state import ReplicaState, RunState, Start, store_life

_LOGGER = logging.getLogger("shoal.engines.local")
_RESEND_WITHIN_S = 1.0
_RESEND_AFTER_S = 0.2


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
    def session(self) -> int | None:
        """The session of its processes while it runs."""
        return self._process.identity.pid if self._process is not None and self._process.alive else None

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
        )
        now = self._machine.clock()
        if self._life.start is not None:
            exit_path(self._machine, self._life.agent, self._life.id, self._life.start.number).unlink(missing_ok=True)
        self._life.start = Start(number, at=now, stdout_from=self.logs.stdout.size, stderr_from=self.logs.stderr.size)
        store_life(self._directory / "state.json", self._life)  # first the intent: no start is ever unknown
        self._life.start.process = start(self._machine, launch, self.logs)
        self._attach(self._life.start.process)

    def _attach(self, identity: Identity) -> None:
        self._process = Process(identity, self.wake)

    def _end_of(self, begun: Start, *, just_ended: bool) -> int | None:
        """The exit status of a start that is over; what it left behind is killed."""
        if begun.process is not None:
            kill_remnants(begun.process, self._life.id, just_ended=just_ended)
        return read_exit(exit_path(self._machine, self._life.agent, self._life.id, begun.number))

    async def _sleep(self, seconds: float | None) -> None:
        """Until woken, or so long."""
        if seconds is None or seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
        self._wake.clear()

    async def _wait_until(self, at: float, give_up: Callable[[], bool]) -> None:
        """Until that epoch second, or until `give_up` holds after a wake."""
        while not give_up() and (left := at - self._machine.clock()) > 0:
            await self._sleep(None if math.isinf(left) else left)

    async def _end_process(self, stop_by: float) -> None:
        """SIGTERM was sent: waits until the instant, then SIGKILL, and until nothing of the group is left."""
        begun, process = self._life.start, self._process
        if begun is None or process is None:
            return
        clock = self._machine.clock
        if clock() - begun.at < _RESEND_WITHIN_S:
            # The leader may have taken the signal before it had a command to pass it to.
            await self._wait_until(min(stop_by, clock() + _RESEND_AFTER_S), lambda: not process.alive)
            process.signal_group(signal.SIGTERM)
        await self._wait_until(stop_by, lambda: not process.alive)
        while process.alive:
            process.signal_group(signal.SIGKILL)
            await self._sleep(1.0)
        await self._clear_group(begun)

    async def _clear_group(self, begun: Start) -> None:
        if begun.process is not None and kill_remnants(begun.process, self._life.id, just_ended=True):
            await wait_gone(begun.process)

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
                return False
            self._life.phase, self._life.started_at = Phase.RUNNING, begun.at
        if self._life.phase in {Phase.PENDING, Phase.BACKOFF} or not _may_live(begun.process):
            return False
        self._attach(begun.process)
        return True


def _may_live(identity: Identity) -> bool:
    """Whether it has to be taken for running; one of which nobody can tell is watched until somebody can."""
    try:
        return is_alive(identity)
    except OSError:
        return True
