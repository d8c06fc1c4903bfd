"""One agent on this machine: its revisions, how many replicas each has, and the lives of all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from shoal.core.action import EnsureRevision, RunJob, Scale
from shoal.core.observed import AgentObserved, JobRun, life_id
from shoal.core.template import Template
from shoal.engines.local.layout import (
    append_line,
    directories,
    file_name,
    make_private,
    read_if_there,
    remove_tree,
    write_whole,
)
from shoal.engines.local.machine import Machine
from shoal.engines.local.render import check_command
from shoal.engines.local.replica import ReplicaLife
from shoal.engines.local.run import ENDED, RunLife
from shoal.engines.local.state import (
    AgentState,
    ReplicaState,
    RevisionState,
    RunState,
    load_agent,
    load_life,
    store_agent,
    store_life,
)
from shoal.errors import EngineError
from shoal.spec.model import Health, Kind, Placement, Resources

_LOGGER = logging.getLogger("shoal.engines.local")
RUNS_KEPT = 20
_RUN_IDS_KEPT = 2000
_RUN_IDS_SLACK = 200  # so that the file is written anew only now and then
_GONE_LOGS_KEPT = 20
_UNKNOWN_GRACE_S = 10.0  # what the spec gives an agent that says nothing

Story = Callable[[], Coroutine[Any, Any, None]]


class LocalAgent:
    """`begin` takes what must run on, and takes it up again where it breaks off; `changed` is called after every
    change, `freed` when something that replicas of any agent may wait for was given back. `view` is the same object
    until something changes."""

    def __init__(
        self,
        machine: Machine,
        name: str,
        begin: Callable[[Story], object],
        changed: Callable[[], None],
        freed: Callable[[], None],
    ) -> None:
        self.name = name
        self._machine = machine
        self._begin = begin
        self._changed = changed
        self._freed = freed
        self._replicas: dict[str, ReplicaLife] = {}
        self._runs: dict[str, RunLife] = {}
        self._history: dict[str, JobRun] = {}  # runs that have ended
        self._view: AgentObserved | None = None
        self._stored = self._filled = True  # false while the disk does not take it
        self._directory = make_private(machine.layout.agent(name))
        self._state = load_agent(machine.layout.manifest(name)) or AgentState(name)
        noted = (read_if_there(machine.layout.run_ids(name)) or b"").decode(errors="replace").splitlines()
        self._run_ids = dict.fromkeys(noted)  # the oldest first

    @property
    def view(self) -> AgentObserved:
        """What is observed of it."""
        if self._view is None:
            self._view = AgentObserved(
                self.name,
                {revision: known.count for revision, known in self._state.revisions.items() if not known.removed},
                tuple(life.value() for life in self._replicas.values()),
                (*self._history.values(), *(life.value() for life in self._runs.values())),
            )
        return self._view

    @property
    def lives(self) -> tuple[ReplicaLife | RunLife, ...]:
        """All that may have a process."""
        return (*self._replicas.values(), *self._runs.values())

    @property
    def secret_digests(self) -> set[str]:
        """Of the secrets of all its revisions that are known."""
        return {use.digest for known in self._state.revisions.values() for use in known.template.secrets}

    @property
    def gone(self) -> bool:
        """Removed, and nothing of it is left."""
        return self._state.removed and not self._replicas and not self._runs

    def adopt(self) -> None:
        """Takes over what an earlier controller left; once, before anything else."""
        known = set(self._state.revisions)
        paths = list(directories(self._directory / "lives"))
        states = [load_life(path / "state.json") for path in paths]
        self._state.made = max([self._state.made, *(_number_of(path.name) for path in paths)])
        for state in states:
            if isinstance(state, RunState) and state.id not in self._run_ids:
                with contextlib.suppress(OSError):
                    self._note_run_id(state.id)
                self._run_ids[state.id] = None  # known, whatever the disk took
        for state in sorted(filter(None, states), key=_order_of_making):
            if isinstance(state, RunState) and state.phase in ENDED:
                self._history[state.id] = state.value()
                continue
            if state.revision not in known:  # the file that said what it is is lost: control says so again
                lost = self._state.revisions.setdefault(state.revision, _unknown_revision(self.name))
                lost.count += isinstance(state, ReplicaState) and state.stop_due is None
            if isinstance(state, ReplicaState):
                self._live(state, adopted=True)
            else:
                self._live_run(state, adopted=True)
        if self._state.removed:
            self.remove(None)
        self._touch()
        self._fill_all()

    def ensure(self, action: EnsureRevision) -> None:
        """Makes the revision known; a known one takes the new environment for what starts later.

        Raises EngineError for what can't be started by a command.
        """
        check_command(action.template)
        known = self._state.revisions.get(action.revision)
        environment = dict(action.environment)
        same = known is not None and (known.template, known.environment) == (action.template, environment)
        if known is not None and same and not known.removed and not self._state.removed:
            return
        self._state.removed = False
        self._state.revisions[action.revision] = RevisionState(
            action.template, environment, 0 if known is None else known.count
        )
        for life in self.lives:
            if life.revision.revision == action.revision:
                life.revision = action
        self._store()

    def scale(self, action: Scale) -> None:
        """Stops the victims, then brings the revision to the count. Raises EngineError for an unknown revision."""
        known = self._state.revisions.get(action.revision)
        if known is None or known.removed:
            raise EngineError(f"agents.{self.name}: revision {action.revision} is not known; ensure it first")
        if known.count != action.count:
            known.count = action.count
            self._store()
        for victim in action.victims:
            life = self._replicas.get(victim)
            if life is not None and life.state.revision == action.revision:
                life.stop()
        self._fill(action.revision, action.count)

    def run(self, action: RunJob) -> None:
        """Starts the run unless its id was ever seen. Raises EngineError for an unknown revision."""
        if action.run_id in self._run_ids:
            return
        known = self._state.revisions.get(action.revision)
        if known is None or known.removed:
            raise EngineError(f"agents.{self.name}: revision {action.revision} is not known; ensure it first")
        now = self._machine.clock()
        state = RunState(action.run_id, self.name, action.revision, now, action.timeout_s, action.retries)
        # The run first, then its id, then the start: whenever this controller dies, the run is not lost, nor had twice.
        directory = make_private(self._machine.layout.life(self.name, state.id))
        try:
            store_life(directory / "state.json", state)
            self._note_run_id(state.id)
        except OSError:
            remove_tree(directory)
            raise
        self._live_run(state)
        self._touch()

    def remove(self, revision: str | None) -> None:
        """Stops and forgets the revision, or all of the agent. Said again, nothing changes."""
        for life in self.lives:
            if revision is None or life.state.revision == revision:
                life.stop()
        left = [
            known
            for name, known in self._state.revisions.items()
            if not known.removed and (revision is None or name == revision)
        ]
        for known in left:
            known.count, known.removed = 0, True
        forgotten = revision is None and not self._state.removed
        if forgotten:
            self._state.removed = True
            self._history.clear()
            self._run_ids.clear()
            self._machine.layout.run_ids(self.name).unlink(missing_ok=True)
        dropped = self._sweep()
        if self.gone:
            remove_tree(self._directory)
            self._touch()
        elif left or forgotten or dropped:
            self._store()

    def wake(self) -> None:
        """Something was freed: who waits for a place looks again."""
        for life in self.lives:
            life.wake()

    def catch_up(self) -> None:
        """Tries again what the disk did not take."""
        if self.gone:
            return
        if not self._stored:
            self._store()
        if not self._filled:
            self._fill_all()

    async def look_at_logs(self, now: float, *, rotate: bool) -> None:
        """Notes how logs grow, and rotates what has become too large: in a thread, as that may take seconds."""
        timing = self._machine.timing
        for life in self.lives:
            life.logs.look(now, math.inf, timing.logs_kept)
        for life in self.lives if rotate else ():
            if life.logs.largest > timing.log_bytes:
                await asyncio.to_thread(life.logs.look, now, timing.log_bytes, timing.logs_kept)

    def close(self) -> None:
        """Stops watching; what runs runs on."""
        for life in self.lives:
            life.close()

    def _fill(self, revision: str, count: int) -> None:
        """Brings the revision to the count."""
        living = [life for life in self._replicas.values() if life.state.revision == revision and not life.stopping]
        for life in order_of_stopping(living)[: max(0, len(living) - count)]:
            life.stop()
        for _ in range(count - len(living)):
            try:
                self._make(revision)
            except OSError:
                self._filled = False
                raise

    def _fill_all(self) -> None:
        """Brings every revision to its count, as far as the disk takes it."""
        self._filled = True
        for revision, known in list(self._state.revisions.items()):
            try:
                self._fill(revision, known.count)
            except OSError as error:
                _LOGGER.warning("agents.%s: not all of it is started, tried again later: %s", self.name, error)

    def _make(self, revision: str) -> None:
        self._state.made += 1
        self._store()
        ordinal = None
        if self._state.revisions[revision].template.stateful:
            taken = {life.state.ordinal for life in self._replicas.values() if not life.stopping}
            ordinal = next(number for number in range(len(taken) + 1) if number not in taken)
        identity = life_id(self.name, self._state.made, ordinal)
        self._live(ReplicaState(identity, self.name, revision, self._machine.clock(), ordinal=ordinal))

    def _live(self, state: ReplicaState, *, adopted: bool = False) -> ReplicaLife:
        life = ReplicaLife(self._machine, state, self._revision(state.revision), self._touch, self._ordinal_held)
        self._replicas[state.id] = life
        if adopted:
            life.adopt()
        self._touch()
        self._begin(lambda: self._follow_replica(life))
        return life

    async def _follow_replica(self, life: ReplicaLife) -> None:
        await life.run()
        self._replicas.pop(life.state.id, None)
        self._settle()

    def _live_run(self, state: RunState, *, adopted: bool = False) -> RunLife:
        life = RunLife(self._machine, state, self._revision(state.revision), self._touch)
        self._runs[state.id] = life
        if adopted:
            life.adopt()
        self._begin(lambda: self._follow_run(life))
        return life

    async def _follow_run(self, life: RunLife) -> None:
        await life.run()
        self._runs.pop(life.state.id, None)
        if not self._state.removed:
            self._history[life.state.id] = life.value()
        self._settle()

    def _note_run_id(self, run_id: str) -> None:
        """Keeps it from running a second time; on the disk when this returns. Of old ids the newest stay."""
        self._run_ids[run_id] = None
        path = self._machine.layout.run_ids(self.name)
        try:
            if len(self._run_ids) < _RUN_IDS_KEPT + _RUN_IDS_SLACK:
                append_line(path, run_id)
            else:
                newest = list(self._run_ids)[-_RUN_IDS_KEPT:]
                write_whole(path, "".join(f"{noted}\n" for noted in newest).encode(), durable=True)
                self._run_ids = dict.fromkeys(newest)
        except OSError:
            self._run_ids.pop(run_id, None)
            raise

    def _settle(self) -> None:
        """Something of it has ended: forgets what nobody uses any more, and lets others have what it held."""
        for run_id in list(self._history)[: max(0, len(self._history) - RUNS_KEPT)]:
            del self._history[run_id]
            remove_tree(self._machine.layout.life(self.name, run_id))
            remove_tree(self._machine.layout.logs(self.name, run_id))
        self._prune_logs()
        dropped = self._sweep()
        if self.gone:
            remove_tree(self._directory)
        elif dropped:
            self._store()
        self._touch()
        self._freed()

    def _sweep(self) -> bool:
        """Drops removed revisions that no life needs; true if there were some."""
        used = {life.state.revision for life in self.lives}
        dropped = [name for name, known in self._state.revisions.items() if known.removed and name not in used]
        for name in dropped:
            del self._state.revisions[name]
        return bool(dropped)

    def _prune_logs(self) -> None:
        """Keeps what the last few that are gone wrote."""
        kept = {file_name(life.state.id) for life in self.lives} | {file_name(run_id) for run_id in self._history}
        gone = [path for path in directories(self._machine.layout.logs(self.name)) if path.name not in kept]
        if len(gone) > _GONE_LOGS_KEPT:
            gone.sort(key=lambda path: path.stat().st_mtime)
            for path in gone[: len(gone) - _GONE_LOGS_KEPT]:
                remove_tree(path)

    def _ordinal_held(self, state: ReplicaState) -> str | None:
        """Never two holders of an identity: it starts when the one before it is gone."""
        if state.ordinal is None:
            return None
        for life in self._replicas.values():
            if life.state is not state and life.state.ordinal == state.ordinal:
                return f"waits for {life.state.id} to give up ordinal {state.ordinal}"
        return None

    def _revision(self, revision: str) -> EnsureRevision:
        known = self._state.revisions[revision]
        return EnsureRevision(self.name, revision, known.template, known.environment)

    def _store(self) -> None:
        try:
            store_agent(self._machine.layout.manifest(self.name), self._state)
            self._stored = True
        except OSError as error:  # a full disk: what runs matters more than our note of it
            _LOGGER.warning("agents.%s: its state was not stored, tried again later: %s", self.name, error)
            self._stored = False
        self._touch()

    def _touch(self) -> None:
        self._view = None
        self._changed()


def order_of_stopping(lives: Sequence[ReplicaLife]) -> list[ReplicaLife]:
    """The highest ordinal first; where there is none, what is not ready, then the newest."""
    newest_first = list(reversed(lives))
    newest_first.sort(key=lambda life: (-(life.state.ordinal or 0), life.state.ready))
    return newest_first


def _unknown_revision(agent: str) -> RevisionState:
    """Stands for a revision of which all but the name is lost, until somebody ensures it: its lives live on, or end in
    peace, and none is started."""
    template = Template(
        agent=agent, kind=Kind.WORKER, image=None, command=None, working_dir=None, environment={}, port=None,
        protocol="http", health=Health(), resources=Resources(), placement=Placement(), stateful=False, volumes=(),
        secrets=(), calls=(), queue=None, publishes=(), stop_grace_period_s=_UNKNOWN_GRACE_S,
    )  # fmt: skip
    return RevisionState(template, {})


def _order_of_making(state: ReplicaState | RunState) -> tuple[int, float]:
    """Replicas by number, as their clock may have been set; runs have none."""
    return (_number_of(state.id), 0.0) if isinstance(state, ReplicaState) else (0, state.created_at)


def _number_of(identity: str) -> int:
    """Which of its agent's replicas it is, by its id."""
    number = identity.rpartition("-")[2].rpartition(".")[2]
    return int(number) if number.isdecimal() else 0
