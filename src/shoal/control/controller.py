"""The loop: observe, decide, act. The only place that ties engine, gateways, sources and store together.

A pass touches only agents of which something changed or whose answer is due; quiet ones cost a few comparisons.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shoal.control.agent_pass import Outcome, scale_agent, step_agent, step_removed, take_in
from shoal.control.agent_state import AgentState, Event, Wired
from shoal.control.events import events_between
from shoal.control.gateway_feed import GatewayFeed
from shoal.control.jobs import step_job
from shoal.control.store import Store, StoredFleet
from shoal.core.action import Action
from shoal.core.decision import Pin
from shoal.core.observed import AgentObserved, Observed
from shoal.core.record import AgentRecord
from shoal.core.revision import revision_of, template_of
from shoal.core.signals import Reading
from shoal.core.template import Template
from shoal.engines.protocol import Engine, Inspector, Platform
from shoal.errors import EngineError, NotFound, ShoalError
from shoal.proxy.protocol import Gateways
from shoal.spec.model import Fleet, Kind, Queue

LOOK_AGAIN_S = 5.0  # an engine whose changes got lost is looked at all the same
PLATFORM_INTERVAL_S = 1.0
QUEUES_INTERVAL_S = 0.25
USAGE_INTERVAL_S = 1.0
RETRY_S = 1.0
EVENTS_KEPT = 2000


class QueueBroker(Protocol):
    """What control needs of the brokers: queues made as declared, and their depths."""

    async def ensure(self, queues: Mapping[str, Queue]) -> None: ...

    async def read(self) -> Mapping[str, Reading]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a controller is made of. `clock` gives epoch seconds; `open_queues` takes the broker's admin URL and the
    fleet's name; `secret_digest` gives the HMAC of a secret's content by its name; `take_fleet` lets an engine that has
    settings in the file read them, before anything is done for a new generation."""

    engine: Engine
    inspector: Inspector
    platform: Platform
    gateways: Gateways
    store: Store
    open_queues: Callable[[str, str], Awaitable[QueueBroker]]
    clock: Callable[[], float]
    secret_digest: Callable[[str], str]
    take_fleet: Callable[[StoredFleet], None] = lambda stored: None


class Controller:
    """One fleet's controller. `run` goes on until a shut-down is done or it is cancelled; cancelling leaves the fleet
    running as it is."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.states: dict[str, AgentState] = {}
        self.stored: StoredFleet | None = None
        self.wired: Wired | None = None
        self.queues: QueueBroker | None = None
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.problems: dict[str, str] = {}
        self.stopped = asyncio.Event()
        self.tasks: asyncio.TaskGroup | None = None  # where barriers run; `run` brings its own
        self._published = asyncio.Event()
        self._templates: dict[str, Template] = {}
        self._observed = Observed(0.0, {}, complete=False)
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._look, self._looked_at, self._reload = True, 0.0, True
        self._closing: bool | None = None  # with or without the data
        self._feed = GatewayFeed(
            parts.gateways, states=self.states, clock=parts.clock, note=self.note, wake=self._touch
        )

    # What people ask for.

    @property
    def settled(self) -> bool:
        """Whether all that was stored is carried out and at rest."""
        return not self._reload and not self._dirty and all(state.settled for state in self.states.values())

    def apply(self) -> None:
        """The stored fleet changed: look at it now."""
        self._reload = True
        self._wake.set()

    def look(self) -> None:
        """The engine changed: observe it in the next pass."""
        self._look = True
        self._wake.set()

    def pin(self, agent: str, count: int | None, for_s: float | None = None) -> None:
        """Sets the count, for a time or until released; `None` releases. Raises NotFound."""
        state = self.state_of(agent)
        if state.spec is None or state.spec.kind is Kind.JOB:
            raise NotFound(f"{agent!r} is a job, which has no replicas to scale; `shoal run {agent}` runs it now")
        now = self.parts.clock()
        pin = None if count is None else Pin(count, None if for_s is None else now + for_s)
        state.record = replace(state.record, pin=pin)
        self.note(
            Event(now, agent, "released" if pin is None else "pinned", f"to {count}" if pin else "to its targets")
        )
        self._touch(agent)

    def run_job(self, agent: str) -> str:
        """Starts a run of a job beside its schedule and returns the run's id. Raises NotFound."""
        state = self.state_of(agent)
        if state.spec is None or state.spec.kind is not Kind.JOB:
            raise NotFound(f"{agent!r} is no job; jobs are agents with a `schedule`")
        run_id = f"{agent}-manual-{int(self.parts.clock() * 1000)}"
        state.manual_runs = (*state.manual_runs, run_id)
        self._touch(agent)
        return run_id

    def state_of(self, agent: str) -> AgentState:
        """Raises NotFound, naming the agents that there are."""
        state = self.states.get(agent)
        if state is None:
            raise NotFound(f"no agent {agent!r} in this fleet; there are: {', '.join(sorted(self.states)) or 'none'}")
        return state

    async def shut_down(self, *, data: bool) -> None:
        """Forgets the fleet, so that everything is drained and stopped; `run` returns when that is done."""
        stored = await self.parts.store.read_fleet()
        if stored is not None and stored.fleet is not None:
            await self.parts.store.write_fleet(
                None,
                directory=stored.directory,
                by="down",
                at=self.parts.clock(),
                expected_generation=stored.generation,
            )
        self._closing = data
        self.apply()

    async def next_change(self) -> None:
        """Returns after the next pass that touched an agent."""
        await self._published.wait()

    def note(self, event: Event) -> None:
        """Adds to the events."""
        self.events.append(event)

    # The loop.

    async def run(self) -> None:
        await self.take_over()
        async with asyncio.TaskGroup() as tasks:
            self.tasks = tasks
            background = [
                tasks.create_task(self._watch_engine(self.parts.engine.changes())),
                tasks.create_task(self._watch_gateways()),
                tasks.create_task(self._every(PLATFORM_INTERVAL_S, self._keep_platform)),
                tasks.create_task(self._every(QUEUES_INTERVAL_S, self.read_queues)),
                tasks.create_task(self._every(USAGE_INTERVAL_S, self._read_usage)),
            ]
            self._wake.clear()
            await self.run_pass()
            while self._closing is None or self._reload or self.states:
                await self._sleep_until_due()
                self._wake.clear()
                await self.run_pass()
            for task in background:
                task.cancel()
        if self.queues is not None:
            await self.queues.close()
        await self.parts.platform.remove(data=bool(self._closing))
        self.stopped.set()

    async def take_over(self) -> None:
        """Waits for one complete look at the engine, and starts from it: counts come from the records, or where those
        are lost from what runs."""
        while not self._observed.complete:
            try:
                self._observed = await self.parts.engine.observe()
            except EngineError as error:
                self._problem("engine", str(error))
            if not self._observed.complete:
                await asyncio.sleep(RETRY_S)
        self._problem("engine", None)
        records = await self.parts.store.read_records()
        for name in {*records, *self._observed.agents}:
            there = self._observed.agents.get(name, AgentObserved(name))
            record = records.get(name) or AgentRecord(desired=sum(there.counts.values()))
            state = self.states[name] = AgentState(name, None, there, record)
            state.take_over(self.parts.clock())

    async def run_pass(self) -> None:
        """One pass. Public for what drives the loop by itself: simulation, tests, measurements."""
        now = self.parts.clock()
        try:
            if self._reload:
                await self._load(now)
            await self._look_at_engine(now)
            outcomes = self._step_all(now)
            if outcomes or self._feed.outdated:
                self._push()
                await self._act([action for outcome in outcomes.values() for action in outcome.actions], now)
                await self._save(outcomes)
        except ShoalError as error:  # told, and tried again; the fleet goes on as it is meanwhile
            self._problem("pass", str(error))
            self._dirty.update(self.states)
            self._looked_at = min(self._looked_at, now - LOOK_AGAIN_S + RETRY_S)
            return
        self._problem("pass", None)

    async def _load(self, now: float) -> None:
        stored = await self.parts.store.read_fleet()
        fleet = stored.fleet if stored is not None else None
        if stored is not None and fleet is not None:
            self.parts.take_fleet(stored)
            wiring = await self.parts.platform.ensure(fleet)
            await self._connect_queues(fleet, wiring.broker_admin_url)
            self.wired = Wired(fleet.fleet, stored.generation, stored.directory, wiring)
            for name, spec in fleet.agents.items():
                digests = {secret.name: self.parts.secret_digest(secret.name) for secret in spec.secrets}
                self._take_spec(name, template_of(fleet, name, digests), fleet, now)
        for name, state in self.states.items():
            if fleet is None or name not in fleet.agents:
                state.spec = None
        self.stored = stored
        self._dirty.update(self.states)
        self._reload = False

    def _take_spec(self, name: str, template: Template, fleet: Fleet, now: float) -> None:
        state = self.states.get(name)
        if state is None:
            state = self.states[name] = AgentState(name, None, AgentObserved(name))
            state.take_over(now)
        self._templates[name] = template
        state.spec, state.revision, state.ensure = fleet.agents[name], revision_of(template), True

    async def _connect_queues(self, fleet: Fleet, admin_url: str | None) -> None:
        if admin_url is None:
            return
        if self.queues is None:
            self.queues = await self.parts.open_queues(admin_url, fleet.fleet)
        await self.queues.ensure(fleet.queues)

    async def _look_at_engine(self, now: float) -> None:
        if not self._look and abs(now - self._looked_at) < LOOK_AGAIN_S:
            return
        self._look, self._looked_at = False, now
        self._observed = observed = await self.parts.engine.observe()
        for name, state in self.states.items():
            before = state.observed
            if take_in(state, observed):
                self._dirty.add(name)
                self.events.extend(events_between(before, state.observed, now))
        for name in observed.agents.keys() - self.states.keys():
            self.states[name] = AgentState(name, None, observed.agents[name])
            self._dirty.add(name)

    def _step_all(self, now: float) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        traffic = self.parts.gateways.traffic()
        for name, state in self.states.items():
            counts = traffic.get(name)
            if counts is not None and counts is not state.traffic:
                state.traffic = counts
                state.series = state.series.extended(now, counts)
            elif name not in self._dirty and (state.due_at is None or state.due_at > now):
                continue
            outcome = self._step_one(state, now)
            if now < state.retry_at:  # the engine refused it a moment ago
                state.ensure, state.settled = True, False
                state.due_at = min(state.retry_at, state.due_at or state.retry_at)
                outcome = replace(outcome, actions=())
            outcomes[name] = outcome
        self._dirty.clear()
        return outcomes

    def _step_one(self, state: AgentState, now: float) -> Outcome:
        chooses = self.parts.engine.capabilities.chooses_victims
        fleet = self.stored.fleet if self.stored is not None else None
        if state.spec is None or self.wired is None or fleet is None:
            return Outcome(step_removed(state, chooses_victims=chooses))
        template = self._templates[state.name]
        if state.spec.kind is Kind.JOB:
            return Outcome(step_job(state, state.spec, template, self.wired, now))
        outcome = scale_agent(state, state.spec, now, gateways=bool(self.parts.gateways.live))
        actions = step_agent(state, state.spec, template, self.wired, chooses_victims=chooses)
        return replace(outcome, actions=actions)

    def _push(self) -> None:
        if self.wired is not None:
            fleet = self.stored.fleet if self.stored is not None else None
            self._feed.push(self._feed.compose(fleet, self.wired, self._observed), self.tasks)

    async def _act(self, actions: Sequence[Action], now: float) -> None:
        if not actions:
            return
        failures = await self.parts.engine.act(actions)
        self.look()
        reasons = {failure.action.agent: failure.reason for failure in reversed(failures)}
        for name in {action.agent for action in actions} & self.states.keys():
            state = self.states[name]
            reason = reasons.get(name, "")
            if reason and reason != state.failure:
                self.note(Event(now, name, "refused", reason))
            state.failure = reason
            if reason:
                state.ensure = True
                state.due_at = state.retry_at = now + RETRY_S

    async def _save(self, outcomes: Mapping[str, Outcome]) -> None:
        changed: dict[str, AgentRecord | None] = {}
        for name, outcome in outcomes.items():
            state = self.states[name]
            self.events.extend(outcome.events)
            if state.spec is None and state.settled:
                changed[name] = None
                del self.states[name]
            elif state.spec is not None and state.record is not state.saved:
                changed[name] = state.saved = state.record
        decisions = [outcome.decision for outcome in outcomes.values() if outcome.decision is not None]
        if changed or decisions:
            await self.parts.store.write(changed, decisions)
        self._published.set()
        self._published = asyncio.Event()

    # What wakes it.

    def _touch(self, agent: str) -> None:
        self._dirty.add(agent)
        self._wake.set()

    async def _sleep_until_due(self) -> None:
        now = self.parts.clock()
        due = min((s.due_at for s in self.states.values() if s.due_at is not None), default=None)
        wait_s = LOOK_AGAIN_S if due is None else min(LOOK_AGAIN_S, max(0.0, due - now))
        if self.problems.get("pass"):
            wait_s = RETRY_S
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _watch_engine(self, changes: AsyncIterator[None]) -> None:
        async for _ in changes:
            self.look()

    async def _watch_gateways(self) -> None:
        while True:
            await self.parts.gateways.changed()
            refusals = self.parts.gateways.refusals.items()
            words = "; ".join(f"gateway {name} refuses what it was sent: {why}" for name, why in refusals)
            self._problem("gateways", words or None)
            self._wake.set()

    async def _every(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await work()
            except ShoalError as error:
                self._problem(work.__name__.strip("_"), str(error))
            else:
                self._problem(work.__name__.strip("_"), None)

    async def _keep_platform(self) -> None:
        fleet = self.stored.fleet if self.stored is not None else None
        if fleet is not None and self._closing is None and not self._reload:
            await self.parts.platform.ensure(fleet)

    async def read_queues(self) -> None:
        """Reads the depths now. Public for what drives the loop by itself."""
        if self.queues is None:
            return
        depths = await self.queues.read()
        for name, state in self.states.items():
            depth = depths.get(state.spec.queue) if state.spec is not None and state.spec.queue else None
            if depth is not None:
                changed = state.depth is None or state.depth.value != depth.value
                state.depth = depth
                if changed:
                    self._touch(name)

    async def _read_usage(self) -> None:
        usage = await self.parts.inspector.usage()
        for name, state in self.states.items():
            state.usage = {r.id: usage[r.id] for r in state.observed.replicas if r.id in usage}
            target = state.spec.scale.target if state.spec is not None else None
            if target is not None and (target.cpu is not None or target.memory is not None):
                self._touch(name)

    def _problem(self, where: str, message: str | None) -> None:
        """Notes what goes wrong now, once, and that it is over."""
        before = self.problems.get(where)
        if message is None:
            self.problems.pop(where, None)
        else:
            self.problems[where] = message
        if message is not None and message != before:
            self.note(Event(self.parts.clock(), None, "problem", message))
