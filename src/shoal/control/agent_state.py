"""What the controller knows of one agent between two passes. Kept in memory; `record` is the durable part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shoal.core.decision import Decision, Pin, Recommendation, ScaleEvent, ScalingHistory
from shoal.core.observed import AgentObserved, CountOwner, JobRun, Replica
from shoal.core.ownership import Held
from shoal.core.rabbitmq import RabbitMqQueue
from shoal.core.record import AgentRecord
from shoal.core.routing import AgentRoute, Traffic
from shoal.core.signals import Reading, Signals, Usage
from shoal.core.traffic import Series
from shoal.core.wiring import Wiring, environment_for
from shoal.errors import Conflict
from shoal.spec.model import Agent

STALE_S = 10.0  # a depth that could not be read again for so long is not known any more


@dataclass(slots=True)
class AgentState:
    """One agent. `spec` is `None` once it left the fleet and only has to be drained and forgotten; `last` is its spec
    until then, as far as this controller knew it."""

    name: str
    spec: Agent | None
    observed: AgentObserved
    record: AgentRecord = field(default_factory=AgentRecord)
    revision: str = ""
    last: Agent | None = None
    calls: dict[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])  # by revision
    ensure: bool = True
    history: ScalingHistory = field(default_factory=ScalingHistory)
    decision: Decision | None = None
    held: Held | None = None  # the count, where it is somebody else's to set
    overruled: CountOwner | None = None  # from whom a person took it, until the engine shows that it is Shoal's
    traffic: Traffic | None = None
    series: Series = field(default_factory=Series)
    depth: Reading | None = None
    usage: Mapping[str, Usage] = field(default_factory=dict[str, Usage])
    signals: Signals = field(default_factory=Signals)
    route: AgentRoute | None = None
    hold_acknowledged: bool = False
    serving: tuple[Replica, ...] = ()
    leaving: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    due_at: float | None = 0.0
    settled: bool = False
    acting: bool = False  # the engine does what it was asked for, or did and was not looked at since
    waiting_for: str = ""
    waits_on: tuple[str, ...] = ()  # agents, before its first start or its end
    next_run_at: float | None = None
    manual_runs: tuple[str, ...] = ()
    failure: str = ""
    retry_at: float = 0.0
    ready_seen: dict[tuple[str, float], float] = field(default_factory=dict[tuple[str, float], float])
    saved: AgentRecord | None = None
    may_return: bool = True  # it is, or was until the end, of the fleet that is stored: that one may be started again

    def take_over(self, now: float) -> None:
        """Starts the autoscaler's memory: what is durable, and the wanted count as a first recommendation, so that
        who takes over does not scale down on an empty window. A rollout gets its time anew: nobody led it meanwhile."""
        if self.record.rollout is not None and self.record.rollout.finished_at is None:
            self.record = replace(self.record, rollout=replace(self.record.rollout, progressed_at=now))
        # Whoever is ready has proven itself to the controller before, by whichever clock.
        self.ready_seen = {(r.id, r.ready_at): 0.0 for r in self.observed.replicas if r.ready_at is not None}
        seed = (Recommendation(now, self.record.desired),) if self.record.desired else ()
        ups, downs = _until(now, self.record.ups), _until(now, self.record.downs)
        self.history = ScalingHistory(seed, ups, downs)

    @property
    def may_call(self) -> tuple[str, ...]:
        """What the file says, or said last, and what was said of the revisions of which something still runs."""
        said = [self.calls.get(self.revision, ()), *(self.calls.get(each, ()) for each in self.running)]
        return tuple(dict.fromkeys(callee for calls in said for callee in calls))

    @property
    def running(self) -> list[str]:
        """The revisions of which something runs."""
        runs = [run.revision for run in self.observed.runs if run.finished_at is None]
        return sorted({*(replica.revision for replica in self.observed.replicas), *runs})

    def pin(self, count: int | None, for_s: float | None, now: float) -> Event:
        """Sets the count that a person wants, or releases it. Raises Conflict where it is somebody else's to set."""
        held = self.held
        if held is not None and held.owner.lasting and not held.delegated:
            raise Conflict(
                f"{self.name}: {held.owner.name} sets how many replicas it has, and would do so again; remove that "
                "first, then its count is Shoal's"
            )
        if held is not None and not held.delegated:
            self.overruled = held.owner
        pin = None if count is None else Pin(count, None if for_s is None else now + for_s)
        self.record = self.record.pinned(pin)
        kind, words = ("released", "to its targets") if pin is None else ("pinned", f"to {count}")
        return Event(now, self.name, kind, words)

    @property
    def pin_is_stored(self) -> bool:
        """Whether the next controller would know the count that a person set, or that none did."""
        return self.saved is not None and self.saved.pin == self.record.pin

    @property
    def over(self) -> bool:
        """Whether it has left the fleet, and nothing of it is left."""
        return self.spec is None and self.settled and not self.acting

    @property
    def next_at(self) -> float | None:
        """When it has to be looked at though nothing changed. That a depth was read again is no reason; that it could
        not be for too long is one."""
        due_at = self.due_at
        if self.spec is not None and self.depth is not None and self.signals.queue_depth is not None:
            stale_at = self.depth.at + STALE_S
            due_at = stale_at if due_at is None else min(due_at, stale_at)
        return None if due_at is None else max(due_at, self.retry_at)

    @property
    def kept_at_end(self) -> AgentRecord | None:
        """What is known of it on, once it is over."""
        return self.record.kept_at_end if self.may_return else None

    def learn_calls(self, calls: Mapping[str, tuple[str, ...]]) -> None:
        """Whom revisions may call, as far as it is not known yet."""
        self.calls = {**calls, **self.calls}

    def take_spec(self, spec: Agent, revision: str) -> None:
        """What the file says of it now; whom the revisions may call that still run is kept."""
        if self.spec is not None and self.spec.kind is not spec.kind:
            self._forget_kind()
        self.spec = self.last = spec
        self.may_return = True
        self.calls = {each: self.calls[each] for each in self.running if each in self.calls} | {revision: spec.calls}
        self.revision, self.ensure, self.waits_on = revision, True, ()

    def leave(self, *, with_fleet: bool) -> None:
        """It is not in the fleet any more, or that ended. Should it come back once it has ended, that is a first
        start."""
        self.spec, self.waits_on, self.settled = None, (), False
        self.may_return = self.may_return and with_fleet
        if self.record.started:
            self.record = replace(self.record, started=False)

    def _forget_kind(self) -> None:
        """It becomes another kind of agent: what was known of the demand and the schedule of the one before is over."""
        self.decision, self.next_run_at, self.depth = None, None, None
        self.signals, self.series, self.traffic = Signals(), Series(), None

    def set_back(self, by_s: float) -> None:
        """The clock was set back: what is remembered keeps its age, else an hour set back would be an hour in which no
        window forgets and nothing is due. A job's last run stays where it was: no time is run for twice."""
        history, pin = self.history, self.record.pin
        self.history = ScalingHistory(
            tuple(replace(past, at=past.at - by_s) for past in history.recommendations),
            tuple(replace(event, at=event.at - by_s) for event in history.ups),
            tuple(replace(event, at=event.at - by_s) for event in history.downs),
        )
        if pin is not None and pin.until is not None:
            pin = replace(pin, until=pin.until - by_s)
        rollout = self.record.rollout
        if rollout is not None and rollout.finished_at is None:
            rollout = replace(rollout, progressed_at=rollout.progressed_at - by_s)
        record = replace(self.record, pin=pin, ups=self.history.ups, downs=self.history.downs, rollout=rollout)
        if record != self.record:
            self.record = record
        self.series = replace(
            self.series, points=tuple(replace(point, at=point.at - by_s) for point in self.series.points)
        )
        if self.depth is not None:
            self.depth = replace(self.depth, at=self.depth.at - by_s)
        self.usage = {name: replace(usage, at=usage.at - by_s) for name, usage in self.usage.items()}
        self.due_at = None if self.due_at is None else self.due_at - by_s
        self.retry_at -= by_s
        self.ready_seen = {ready: at - by_s for ready, at in self.ready_seen.items()}

    def slept(self, for_s: float) -> None:
        """The clock went on without us (a machine that was suspended, or a clock that was set): a rollout that could
        make no progress meanwhile is not to be given up for it."""
        rollout = self.record.rollout
        if rollout is not None and rollout.finished_at is None:
            rollout = replace(rollout, progressed_at=rollout.progressed_at + for_s)
            self.record = replace(self.record, rollout=rollout)

    def observed_by(self, now: float) -> AgentObserved:
        """The observation, in which nobody became ready later than now: who is told so, by another clock or by this one
        before it was set back, counts as ready since it was first seen ready."""
        late = {
            (r.id, r.ready_at) for r in self.observed.replicas if r.ready_at is not None and r.ready_at > now
        }  # fmt: skip
        if not late:
            return self.observed
        self.ready_seen = {ready: min(now, self.ready_seen.get(ready, now)) for ready in late}
        replicas = tuple(
            r if r.ready_at is None or r.ready_at <= now else replace(r, ready_at=self.ready_seen[r.id, r.ready_at])
            for r in self.observed.replicas
        )
        return replace(self.observed, replicas=replicas)

    @property
    def healthy(self) -> int | None:
        """How many endpoints the gateways take for healthy; `None` while no gateway told."""
        return self.traffic.healthy if self.traffic is not None else None


def _until(now: float, events: tuple[ScaleEvent, ...]) -> tuple[ScaleEvent, ...]:
    """The events, none later than now: a clock may have been set back since they were written."""
    return tuple(event if event.at <= now else replace(event, at=now) for event in events)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for people: `kind` is a short word, `agent` `None` for the fleet as a whole."""

    at: float
    agent: str | None
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Wired:
    """A generation that is being carried out, and the addresses on which it runs; `outside` are its queues on brokers
    that Shoal does not run."""

    fleet: str
    generation: int
    directory: str
    wiring: Wiring
    outside: Mapping[str, RabbitMqQueue] = field(default_factory=dict[str, RabbitMqQueue])

    def environment_of(self, name: str, agent: Agent) -> dict[str, str]:
        """The variables that Shoal adds for one agent."""
        return environment_for(self.fleet, name, agent, self.wiring, self.outside)


def runs_by_id(observed: AgentObserved) -> dict[str, JobRun]:
    """A job's runs, by their id."""
    return {run.run_id: run for run in observed.runs}
