"""The life of one run of a job: started once for its id, in time or not at all, repeated as often as allowed."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable

from shoal.core.action import EnsureRevision
from shoal.core.observed import JobRun, Phase
from shoal.core.schedule import retry_delay_s
from shoal.engines.local.in_memory import remove_from_memory
from shoal.engines.local.life import Life
from shoal.engines.local.machine import Machine
from shoal.engines.local.render import exit_reason, start_failure
from shoal.engines.local.state import RunState
from shoal.errors import ShoalError

ENDED = (Phase.SUCCEEDED, Phase.FAILED)


class RunLife(Life):
    """The timeout is an attempt's: SIGTERM then, SIGKILL after the grace period, and the attempt has failed."""

    def __init__(
        self, machine: Machine, state: RunState, revision: EnsureRevision, changed: Callable[[], None]
    ) -> None:
        super().__init__(machine, state, revision, changed)
        self.state = state

    def value(self) -> JobRun:
        """As it is observed."""
        return self.state.value()

    def stop(self) -> None:
        """Ends it for good: its agent or revision was removed."""
        if self.stopping or self.state.phase in ENDED:
            return
        self.stopping = True
        if self._process is not None:
            self._process.signal_group(signal.SIGTERM)
        self.wake()

    def adopt(self) -> None:
        """Takes over what an earlier controller left, before `run`."""
        if not self._adopt_process() and self.state.start is not None and self.state.phase is Phase.RUNNING:
            self._conclude(self._exit_of(self.state.start))

    async def run(self) -> None:
        """Until it has succeeded, failed for good, or was told to end."""
        if self._leftovers:
            await self._clear_away()
        if self._process is not None and self.state.phase is Phase.RUNNING:
            await self._attend()
        while not self.stopping and self.state.phase not in ENDED:
            await self._wait_until(self.state.start_due or self._machine.now, lambda: self.stopping)
            await self._wait_for_a_place()
            if not self.stopping and self._start():
                await self._attend()
        if self.stopping:
            await self._end_process(self._machine.now.after(self.grace_s))
            self._end(None, "removed while it ran")
        self._machine.gpus.release(self.state.id)
        remove_from_memory(self._directory)

    def _start(self) -> bool:
        state = self.state
        try:
            self._begin(None, None)
        except (ShoalError, OSError) as error:
            self._repeat_or_fail(None, start_failure(error, self._directory))
            return False
        state.phase, state.reason, state.timed_out = Phase.RUNNING, "", False
        state.started_at = state.start.at if state.start else None
        state.finished_at = state.start_due = state.exit_code = None
        self._save()
        return True

    async def _attend(self) -> None:
        state = self.state
        timeout_s = math.inf if state.timeout_s is None else state.timeout_s
        due = self._machine.now.after(timeout_s - self._age_s())
        await self._wait_until(due, lambda: self.stopping or not self._running)
        if self.stopping:
            return
        if self._process is not None and self._running:
            state.timed_out, state.reason = True, f"timed out after {timeout_s:g}s; it is told to end"
            self._save()
            self._process.signal_group(signal.SIGTERM)
            await self._end_process(self._machine.now.after(self.grace_s))
        if state.start is not None and not self.stopping:
            exit_code = self._exit_of(state.start)
            await self._clear_away()
            self._conclude(exit_code)

    def _conclude(self, exit_code: int | None) -> None:
        if self._excess:
            self._repeat_or_fail(137, self._excess)
        elif self.state.timed_out:
            self._repeat_or_fail(exit_code, f"timed out after {self.state.timeout_s:g}s")
        elif exit_code == 0:
            self._end(0, "")
        else:
            self._repeat_or_fail(exit_code, exit_reason(exit_code))

    def _repeat_or_fail(self, exit_code: int | None, reason: str) -> None:
        state, now = self.state, self._machine.clock()
        if state.attempt > state.retries:
            self._end(exit_code, reason)
            return
        delay_s = retry_delay_s(state.attempt)
        state.phase, state.exit_code, state.finished_at = Phase.BACKOFF, exit_code, now
        state.reason = f"{reason} (attempt {state.attempt} of {state.retries + 1}, next after {delay_s:g}s)"
        state.attempt += 1
        state.start_due = self._machine.now.after(delay_s)
        self._save()

    def _end(self, exit_code: int | None, reason: str) -> None:
        state = self.state
        state.phase = Phase.FAILED if reason else Phase.SUCCEEDED  # one that timed out may well have ended by 0
        state.exit_code, state.reason, state.finished_at = exit_code, reason, self._machine.clock()
        state.start_due = None
        self._save()
