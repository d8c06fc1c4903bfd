"""The life of one replica: placed, started, probed, started again, and ended."""

from __future__ import annotations

import signal
from collections.abc import Callable

from shoal.core.action import EnsureRevision
from shoal.core.liveness import restarts_after
from shoal.core.observed import Phase, Replica
from shoal.engines.local.in_memory import remove_from_memory
from shoal.engines.local.layout import remove_tree
from shoal.engines.local.life import Life
from shoal.engines.local.listening import listening_ports
from shoal.engines.local.machine import Machine
from shoal.engines.local.ports import is_free
from shoal.engines.local.render import HOST, exit_reason, start_failure, wrong_port_reason
from shoal.engines.local.state import ReplicaState
from shoal.engines.probe import probe
from shoal.errors import ShoalError

_PORT_RETRIES = 3
_NODE = "local"


class ReplicaLife(Life):
    """`may_start` says why it has to wait for others of its agent (an ordinal that is held), or `None`."""

    def __init__(
        self,
        machine: Machine,
        state: ReplicaState,
        revision: EnsureRevision,
        changed: Callable[[], None],
        may_start: Callable[[ReplicaState], str | None],
    ) -> None:
        super().__init__(machine, state, revision, changed)
        self.state = state
        self._may_start = may_start
        self._port_retries = 0
        self._misses = 0
        self._ended_for = ""  # why the start before this one was in vain; a new start may take long to say the same
        if state.port is not None:
            machine.ports.adopt(state.port)

    def value(self) -> Replica:
        """As it is observed."""
        return self.state.value(_NODE)

    def stop(self) -> None:
        """Tells it to end: SIGTERM now, SIGKILL after the grace period. Said again, nothing happens."""
        if self.stopping:
            return
        self.stopping = True
        state = self.state
        state.phase, state.ready, state.start_due = Phase.STOPPING, False, None
        if state.stop_due is None:
            state.stop_due = self._machine.now.after(self.grace_s)
        self._save()
        if self._process is not None:
            self._process.signal_group(signal.SIGTERM)
        self.wake()

    def adopt(self) -> None:
        """Takes over what an earlier controller left, before `run`: from then on what is observed is true."""
        if not self._adopt_process() and self.state.start is not None:
            ran = self.state.phase in {Phase.RUNNING, Phase.STOPPING}
            if ran and self.state.stop_due is None:
                self._fail(self._exit_of(self.state.start))
        if self.state.stop_due is not None:
            self.stop()

    async def run(self) -> None:
        """Until it was told to end and nothing of it is left."""
        if self._leftovers:
            await self._clear_away()
        if self._process is not None and self.state.phase is Phase.RUNNING:
            await self._attend()
        while not self.stopping:
            await self._wait_until(self.state.start_due or self._machine.now, lambda: self.stopping)
            await self._wait_for_a_place()
            if not self.stopping and self._start():
                await self._attend()
        await self._end_process(self.state.stop_due or self._machine.now)
        self._release_port()
        self._machine.gpus.release(self.state.id)
        remove_from_memory(self._directory)
        remove_tree(self._directory)

    def _waits_for(self) -> str | None:
        return self._may_start(self.state)

    def _start(self) -> bool:
        """Starts it; false if it could not even be started, and then it waits like one that ended."""
        state = self.state
        try:
            if self.revision.template.port is not None:
                self._release_port()
                state.port = self._machine.ports.take()
            self._begin(state.port, state.ordinal)
        except (ShoalError, OSError) as error:
            self._release_port()
            self._back_off(None, start_failure(error, self._directory), ())
            return False
        state.phase, state.ready, state.ready_at = Phase.RUNNING, False, None
        state.started_at = state.start.at if state.start else None
        state.start_due = None
        state.reason = f"started again after: {self._ended_for}" if self._ended_for else ""
        self._misses = 0
        self._save()
        return True

    async def _attend(self) -> None:
        """As long as its process runs and nobody stops it."""
        if self.state.ready_at is None and not self.stopping:
            await self._wait_until_ready()
        while self._running and not self.stopping:
            await self._check_health()
        if not self.stopping and self.state.start is not None:
            exit_code = self._exit_of(self.state.start)
            await self._clear_away()
            self._fail(exit_code)

    async def _wait_until_ready(self) -> None:
        """Probes densely at first, then every 2 % of the time that it takes anyway, at most every `interval`."""
        health, timing = self.revision.template.health, self._machine.timing
        look_at = timing.wrong_port_s
        while self._running and not self.stopping:
            miss = await self._probe()
            age = self._age_s()
            if miss is None and self._running and not self.stopping:
                self._become_ready()
                return
            if age > health.start_period_s:
                miss = await self._where_it_listens() or miss
                await self._restart(f"not ready within {health.start_period_s:g}s: {miss}")
                return
            if age > look_at:
                look_at = age * 2
                self._tell(await self._where_it_listens() or f"not ready yet: {miss}")
            await self._sleep(min(max(timing.probe_s, age * 0.02), health.interval_s))

    async def _probe(self) -> str | None:
        template, port = self.revision.template, self.state.port
        if port is None:
            left = self._machine.timing.settled_s - self._age_s()
            if left > 0:
                await self._sleep(left)
            return None if self._running else "ended"
        # A gRPC server speaks no HTTP/1, so that a connection has to be enough.
        path = template.health.path if template.protocol == "http" else None
        return await probe(HOST, port, path, template.health.timeout_s)

    def _become_ready(self) -> None:
        self.state.ready, self.state.ready_at, self.state.reason = True, self._machine.clock(), ""
        self._port_retries, self._ended_for = 0, ""
        self._save()

    async def _check_health(self) -> None:
        """One look at a replica that was ready."""
        health = self.revision.template.health
        if self.state.port is None:
            await self._sleep(None)
        else:  # a wake is mostly somebody else's: it must not bring the next look nearer
            next_look = self._machine.now.after(health.interval_s)
            await self._wait_until(next_look, lambda: self.stopping or not self._running)
        if not self._running or self.stopping or self.state.port is None:
            return
        miss = await self._probe()
        if not self._running or self.stopping:
            return
        self._misses = 0 if miss is None else self._misses + 1
        failed = f"health check failed {self._misses} times in a row: {miss}"
        if self._misses >= restarts_after(health.retries):
            await self._restart(failed)
        elif self._misses >= health.retries:
            self.state.ready = False
            self._tell(failed)
        elif miss is None and not self.state.ready:
            self._become_ready()

    async def _restart(self, why: str) -> None:
        """Ends a process that is no good; what comes after is as if it had ended by itself."""
        self.state.ready, self.state.ready_at = False, None
        self._tell(f"{why}; it is started anew")
        if self._process is not None and not self.stopping:
            self._process.signal_group(signal.SIGTERM)
            await self._end_process(self._machine.now.after(self.grace_s))
        if not self.stopping:
            self._back_off(self._exit_code(), why, self._last_lines())

    def _exit_code(self) -> int | None:
        return None if self.state.start is None else self._exit_of(self.state.start)

    def _last_lines(self) -> tuple[str, ...]:
        begun = self.state.start
        if begun is None:
            return ()
        return tuple(map(self._machine.mask, self.logs.last_lines(begun.stdout_from, begun.stderr_from)))

    def _fail(self, exit_code: int | None) -> None:
        """It ended by itself."""
        if self.state.phase is Phase.BACKOFF:  # ended by `_restart`, which said why
            return
        if self._excess:
            self._back_off(137, self._excess, self._last_lines())
            return
        reason = exit_reason(exit_code) + (", though nobody told it to end" if exit_code == 0 else "")
        port = self.state.port
        if port is not None and not self.state.ready and not is_free(port):
            reason = f"{reason}; port {port} was taken by somebody else meanwhile"
            self._port_retries += 1
            if self._port_retries <= _PORT_RETRIES:
                self._back_off(exit_code, reason, self._last_lines(), wait_s=0.0)
                return
        self._back_off(exit_code, reason, self._last_lines())

    def _back_off(
        self, exit_code: int | None, reason: str, last_log: tuple[str, ...], wait_s: float | None = None
    ) -> None:
        state = self.state
        ran_well = state.phase is Phase.RUNNING and self._age_s() >= self._machine.timing.well_s
        state.failures = 1 if ran_well else state.failures + 1
        state.restarts += 1
        delay_s = self._machine.backoff_after(state.failures) if wait_s is None else wait_s
        state.phase, state.ready, state.ready_at = Phase.BACKOFF, False, None
        state.exit_code, state.last_log = exit_code, last_log
        again = f" ({state.failures} times in a row, next start after {delay_s:g}s)" if state.failures > 1 else ""
        state.reason, self._ended_for = f"{reason}{again}", reason
        state.start_due = self._machine.now.after(delay_s)
        self._save()

    def _tell(self, reason: str) -> None:
        if reason != self.state.reason:
            self.state.reason = reason
            self._save()

    async def _where_it_listens(self) -> str | None:
        port = self.state.port
        if port is None:
            return None
        members = (await self._machine.census.look()).family(self._directory, self.session)
        found = listening_ports(member.pid for member in members)
        return wrong_port_reason(port, found) if found and port not in found else None

    def _release_port(self) -> None:
        if self.state.port is not None:
            self._machine.ports.release(self.state.port)
            self.state.port = None
