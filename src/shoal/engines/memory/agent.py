"""One agent on the memory engine: its replicas and its runs, moved on by the timeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from shoal.core.action import Autoscale, EnsureRevision, RunJob, Scale
from shoal.core.observed import AgentObserved, Autoscaler, CountOwner, JobRun, Phase, Replica, life_id
from shoal.engines.memory.behaviour import Behaviour, Behaviours, backoff_s, behaviour_for
from shoal.engines.memory.timeline import Timeline
from shoal.errors import EngineError

RUNS_KEPT = 20
_ENDED = (Phase.FAILED, Phase.SUCCEEDED)


@dataclass(slots=True, eq=False)
class _Life:
    """A replica and the count of its changes: a step that was planned before the last change is not taken."""

    value: Replica
    behaviour: Behaviour
    change: int = 0


class MemoryAgent:
    """The state of one agent. `view` is the same object until something changes."""

    def __init__(self, name: str, timeline: Timeline, address: Callable[[], str], touched: Callable[[], None]) -> None:
        self.name = name
        self.behaviour: Behaviours = Behaviour()
        self.revisions: dict[str, EnsureRevision] = {}
        self.removed = False
        self._timeline = timeline
        self._address = address
        self._touched = touched
        self._counts: dict[str, int] = {}
        self._owners: dict[str, CountOwner] = {}
        self._autoscaler: Autoscaler | None = None
        self._lives: dict[str, _Life] = {}
        self._runs: dict[str, JobRun] = {}
        self._jobs: dict[str, RunJob] = {}
        self._run_ids: set[str] = set()
        self._made = 0
        self._view: AgentObserved | None = None

    @property
    def gone(self) -> bool:
        """Removed, and its last replica is gone."""
        return self.removed and not self._lives

    @property
    def view(self) -> AgentObserved:
        """What is observed of it."""
        if self._view is None:
            replicas = tuple(life.value for life in self._lives.values())
            runs = tuple(self._runs.values())
            owners = dict(self._owners)
            self._view = AgentObserved(self.name, dict(self._counts), replicas, runs, owners, self._autoscaler)
        return self._view

    def ensure(self, action: EnsureRevision) -> None:
        """Makes the revision known; a known one takes the new environment for what starts later."""
        self.removed = False
        self.revisions[action.revision] = action
        if action.revision not in self._counts:
            self._counts[action.revision] = 0
            self._touch()

    def scale(self, action: Scale) -> None:
        """Stops the victims, then brings the revision to the count. Raises EngineError for an unknown revision."""
        if action.revision not in self._counts:
            raise EngineError(f"agents.{self.name}: revision {action.revision} is not known; ensure it first")
        if self._owners.pop(action.revision, None) is not None or self._counts[action.revision] != action.count:
            self._counts[action.revision] = action.count
            self._touch()
        for victim in action.victims:
            life = self._lives.get(victim)
            if life is not None and life.value.revision == action.revision:
                self._stop(life)
        living = self._living(action.revision)
        for life in self._order_of_stopping(living)[: max(0, len(living) - action.count)]:
            self._stop(life)
        for _ in range(action.count - len(living)):
            self._make(action.revision)

    def set_count(self, revision: str, count: int, owner: CountOwner | None) -> None:
        """As Scale does, but that Shoal did not."""
        self.scale(Scale(self.name, revision, count))
        if owner is not None:
            self._owners[revision] = owner
            self._touch()

    def autoscale(self, action: Autoscale) -> None:
        """Hands the count over, or takes it back; who sets it then is the test."""
        owner = CountOwner(f"the autoscaler of {self.name}", lasting=True)
        autoscaler = Autoscaler(action.revision, owner) if action.revision is not None else None
        before = self._autoscaler
        if (before and before.revision) != (autoscaler and autoscaler.revision):
            self._autoscaler = autoscaler
            self._touch()

    def remove(self, revision: str | None) -> None:
        """Stops and forgets the revision, or all of the agent."""
        for life in list(self._lives.values()):
            if revision is None or life.value.revision == revision:
                self._stop(life)
        for known in [revision] if revision is not None else list(self.revisions):
            if self.revisions.pop(known, None) is not None:
                del self._counts[known]
                self._owners.pop(known, None)
                self._touch()
        if revision is None and not self.removed:
            self.removed, self._autoscaler = True, None
            self._runs.clear()
            self._jobs.clear()
            self._run_ids.clear()
            self._touch()

    def run(self, action: RunJob) -> None:
        """Starts the run unless its id was seen before. Raises EngineError for an unknown revision."""
        if action.run_id in self._run_ids:
            return
        if action.revision not in self.revisions:
            raise EngineError(f"agents.{self.name}: revision {action.revision} is not known; ensure it first")
        self._run_ids.add(action.run_id)
        self._jobs[action.run_id] = action
        self._attempt(action, 1)

    def finish_run(self, run_id: str, exit_code: int, reason: str = "") -> None:
        """Ends the attempt that runs, as told; nothing happens to a run that has ended."""
        run, job = self._runs[run_id], self._jobs[run_id]
        if run.phase is not Phase.RUNNING:
            return
        now = self._timeline.now
        if exit_code == 0:
            self._put_run(replace(run, phase=Phase.SUCCEEDED, finished_at=now, exit_code=0, reason=""))
            return
        reason = reason or f"exit code {exit_code}"
        if run.attempt <= job.retries:
            self._put_run(replace(run, phase=Phase.BACKOFF, finished_at=now, exit_code=exit_code, reason=reason))
            self._timeline.after(backoff_s(run.attempt - 1), lambda: self._again(job, run.attempt))
            return
        self._put_run(replace(run, phase=Phase.FAILED, finished_at=now, exit_code=exit_code, reason=reason))

    def crash(self, replica: str, exit_code: int, reason: str, last_log: tuple[str, ...] = ()) -> None:
        """Ends a replica as if by itself: BACKOFF, then a start in place."""
        life = self._lives[replica]
        if life.value.phase is not Phase.RUNNING:
            return
        restarts = life.value.restarts
        self._put(
            life, phase=Phase.BACKOFF, ready=False, ready_at=None, exit_code=exit_code, last_log=last_log,
            reason=reason or f"exit code {exit_code}", restarts=restarts + 1,
        )  # fmt: skip
        self._later(life, backoff_s(restarts), self._start)

    def set_ready(self, replica: str, ready: bool, reason: str = "") -> None:
        """Flips readiness of a replica that runs."""
        life = self._lives[replica]
        if life.value.phase is Phase.RUNNING and life.value.ready is not ready:
            self._put(life, ready=ready, ready_at=self._timeline.now if ready else None, reason=reason)

    def mend(self, behaviour: Behaviour) -> None:
        """Every replica that lives goes on under this behaviour: one that would never have become ready does."""
        for life in self._lives.values():
            life.behaviour = behaviour
            if life.value.phase is Phase.RUNNING and not life.value.ready and not behaviour.never_ready:
                self._later(life, behaviour.ready_s, self._become_ready)

    def lose(self, replica: str) -> None:
        """Takes a replica away at once and starts another in its stead, as an engine does whose node died."""
        life = self._lives.pop(replica)
        life.change += 1
        self._touch()
        revision = life.value.revision
        if life.value.phase is not Phase.STOPPING and len(self._living(revision)) < self._counts.get(revision, 0):
            self._make(revision)

    def _living(self, revision: str | None = None) -> list[_Life]:
        return [
            life
            for life in self._lives.values()
            if life.value.phase is not Phase.STOPPING and (revision is None or life.value.revision == revision)
        ]

    @staticmethod
    def _order_of_stopping(lives: list[_Life]) -> list[_Life]:
        """The highest ordinal first; where there is none, what is not ready, then the newest."""
        newest_first = lives[::-1]
        newest_first.sort(key=lambda life: (-(life.value.ordinal or 0), life.value.ready))
        return newest_first

    def _make(self, revision: str) -> None:
        template = self.revisions[revision].template
        self._made += 1
        ordinal = None
        if template.stateful:
            taken = {life.value.ordinal for life in self._living()}
            ordinal = next(number for number in range(len(taken) + 1) if number not in taken)
        value = Replica(
            id=life_id(self.name, self._made, ordinal), agent=self.name, revision=revision, phase=Phase.PENDING,
            host=self._address(), port=template.port, node="memory", ordinal=ordinal, created_at=self._timeline.now,
        )  # fmt: skip
        life = _Life(value, behaviour_for(self.behaviour, template))
        self._lives[value.id] = life
        self._touch()
        self._place(life)

    def _place(self, life: _Life) -> None:
        if not self._waits_for_ordinal(life):
            self._later(life, life.behaviour.start_s, self._start)

    def _waits_for_ordinal(self, life: _Life) -> bool:
        """Never two holders of an identity: it starts when the one that stops is gone."""
        ordinal = life.value.ordinal
        if ordinal is None:
            return False
        for other in self._lives.values():
            if other is not life and other.value.ordinal == ordinal:
                self._put(life, reason=f"waits for {other.value.id} to give up ordinal {ordinal}")
                return True
        return False

    def _start(self, life: _Life) -> None:
        now = self._timeline.now
        self._put(life, phase=Phase.RUNNING, started_at=now, reason="")
        if life.behaviour.crash_after_s is not None:
            self._later(life, life.behaviour.crash_after_s, self._crash_by_itself, lasting=True)
        if not life.behaviour.never_ready:
            self._later(life, life.behaviour.ready_s, self._become_ready)

    def _become_ready(self, life: _Life) -> None:
        self.set_ready(life.value.id, True)

    def _crash_by_itself(self, life: _Life) -> None:
        if life.behaviour.crash_after_s is not None:
            self.crash(life.value.id, life.behaviour.exit_code, "")

    def _stop(self, life: _Life) -> None:
        if life.value.phase is Phase.STOPPING:
            return
        ran = life.value.phase is Phase.RUNNING
        self._put(life, phase=Phase.STOPPING, ready=False)
        self._later(life, life.behaviour.stop_s if ran else 0.0, self._gone)

    def _gone(self, life: _Life) -> None:
        del self._lives[life.value.id]
        self._touch()
        if life.value.ordinal is None:
            return
        for other in list(self._lives.values()):
            if other.value.ordinal == life.value.ordinal and other.value.phase is Phase.PENDING:
                self._place(other)

    def _attempt(self, job: RunJob, attempt: int) -> None:
        self._put_run(
            JobRun(job.run_id, self.name, job.revision, Phase.RUNNING, attempt, started_at=self._timeline.now)
        )
        known = self.revisions.get(job.revision)  # an attempt may be repeated after its revision is forgotten
        behaviour = behaviour_for(self.behaviour, known.template) if known is not None else Behaviour()
        lasts = behaviour.job_s
        if job.timeout_s is not None and (lasts is None or lasts > job.timeout_s):
            self._end_later(job, attempt, job.timeout_s, -15, f"timed out after {job.timeout_s:g}s")
        elif lasts is not None:
            self._end_later(job, attempt, lasts, behaviour.job_exit_code, "")

    def _end_later(self, job: RunJob, attempt: int, delay_s: float, exit_code: int, reason: str) -> None:
        def end() -> None:
            run = self._runs.get(job.run_id)
            if run is not None and run.attempt == attempt:
                self.finish_run(job.run_id, exit_code, reason)

        self._timeline.after(delay_s, end)

    def _again(self, job: RunJob, attempt: int) -> None:
        run = self._runs.get(job.run_id)
        if run is not None and run.phase is Phase.BACKOFF and run.attempt == attempt:
            self._attempt(job, attempt + 1)

    def _put_run(self, run: JobRun) -> None:
        self._runs[run.run_id] = run
        ended = [run_id for run_id, run in self._runs.items() if run.phase in _ENDED]
        for run_id in ended[: max(0, len(self._runs) - RUNS_KEPT)]:
            del self._runs[run_id], self._jobs[run_id]
        self._touch()

    def _put(
        self,
        life: _Life,
        **changes: Phase | bool | str | float | int | tuple[str, ...] | None,
    ) -> None:
        life.value = replace(life.value, **changes)  # pyright: ignore[reportArgumentType] - fields of Replica
        life.change += 1
        self._touch()

    def _later(self, life: _Life, delay_s: float, step: Callable[[_Life], None], *, lasting: bool = False) -> None:
        """`lasting`: the step is taken though readiness flips in between, as long as it is the same start."""
        change, started_at = life.change, life.value.started_at

        def take() -> None:
            same = life.value.started_at == started_at if lasting else life.change == change
            if same and self._lives.get(life.value.id) is life:
                step(life)

        self._timeline.after(delay_s, take)

    def _touch(self) -> None:
        self._view = None
        self._touched()
