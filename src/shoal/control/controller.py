"""The loop: observe, decide, act. The only place that ties engine, gateways, sources and store together.

A pass touches only agents of which something changed or whose answer is due; quiet ones cost a few comparisons.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from shoal.control.acting import RETRY_S, Acting
from shoal.control.agent_pass import Outcome, scale_agent, step_agent, step_removed, take_in
from shoal.control.agent_state import AgentState, Event, Wired
from shoal.control.dependencies import take_waits
from shoal.control.events import events_between
from shoal.control.gateway_feed import GatewayFeed
from shoal.control.jobs import step_job
from shoal.control.loading import Loading, Prepared
from shoal.control.parts import Parts
from shoal.control.pass_clock import PassClock
from shoal.control.problems import Problems
from shoal.control.queue_brokers import QueueBrokers
from shoal.control.saving import Saving
from shoal.control.secret_pruning import SecretPruning
from shoal.control.store import StoredFleet
from shoal.control.tally import Tally
from shoal.control.watching import Watching, end_tasks
from shoal.core.dependencies import dependencies_first
from shoal.core.observed import AgentObserved, Observed
from shoal.core.ownership import is_native
from shoal.core.rabbitmq import rabbitmq_queues
from shoal.core.record import AgentRecord
from shoal.core.revision import revision_of, template_of
from shoal.core.template import Template
from shoal.errors import Conflict, ControllerUnavailable, EngineError, NotFound, no_such_agent
from shoal.spec.model import Fleet, Kind

LOOK_AGAIN_S = 5.0  # an engine whose changes got lost is looked at all the same
LOOK_APART_S = 0.25  # while it is busy with what it was asked to do, looks that only that asks for


class Controller:
    """One fleet's controller. `run` goes on until a shut-down is done or it is cancelled; cancelling leaves the fleet
    running as it is."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.states: dict[str, AgentState] = {}
        self.stored: StoredFleet | None = None
        self.wired: Wired | None = None
        self._last_fleet: Fleet | None = None  # while it ends, who still finishes something calls as before
        self.queues = QueueBrokers(parts)
        self.events = parts.events
        self.problems = Problems(parts.clock, self.note)
        self._acting = Acting(parts, self.states, self.problems, note=self.note, wake=self.wake)
        self.tally = Tally()
        self.ends = False  # all is taken down, and nothing that is stored from now on is taken up
        self.stopped = asyncio.Event()
        self.tasks: asyncio.TaskGroup | None = None  # where barriers and actions run; `run` brings its own
        self.passes = 0  # that have begun
        self._published = asyncio.Event()
        self._templates: dict[str, Template] = {}
        self._observed = Observed(0.0, {}, complete=False)
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._look, self._looked_at, self._reload = True, 0.0, True
        self._closing: bool | None = None  # with or without the data
        self._closed_at = 0  # the generation from which on nothing was to run
        self._ended: dict[str, AgentRecord] = {}  # what is kept of the agents of a fleet that is down
        self._reopened = asyncio.Event()
        self._loaded, self._load_at = False, 0.0
        self._clock = PassClock(parts.clock)
        self._pruning = SecretPruning(parts, self.problems)
        self._saving = Saving(parts, self.states, self.wake)
        self.watching = Watching(self)
        self._feed = GatewayFeed(parts.gateways, states=self.states, clock=parts.clock, note=self.note, wake=self.touch)
        self._loading = Loading(parts, self.states, self.queues, self._feed, self.wake)

    # What people ask for.

    @property
    def settled(self) -> bool:
        """Whether all that was stored is carried out and at rest, as far as this is the controller that acts."""
        idle = self._saving.at_rest and not (self._stale or self._dirty or self.queues.behind) and self.parts.has_right
        return idle and all(state.settled and not state.acting for state in self.states.values())

    @property
    def routed(self) -> bool:
        """Whether every gateway routes by it, and the outside reaches one."""
        return self._feed.routed and self._observed.reachable

    @property
    def _stale(self) -> bool:
        """Whether something else may be stored than what is in force."""
        return self._reload or self._loading.busy

    @property
    def wished(self) -> StoredFleet | None:
        """The fleet as it was last read; `stored` once it could be taken up."""
        return self._loading.wished

    @property
    def carried_out(self) -> Fleet | None:
        """The fleet that is in force and not about to be replaced or ended."""
        if self.stored is None or self._closing is not None or self._stale:
            return None
        return self.stored.fleet

    def apply(self) -> None:
        """The stored fleet changed: look at it now."""
        self._reload = True
        self._wake.set()

    def look(self) -> None:
        """The engine changed: observe it in the next pass."""
        self._look = True
        self._wake.set()

    def pin(self, agent: str, count: int | None, for_s: float | None = None) -> None:
        """Sets the count, for a time or until released; `None` releases. Either takes it from whoever set it in the
        engine. Raises NotFound, Conflict where that one would set it again, and ControllerUnavailable before it knows
        the fleet."""
        state = self._taken_up(agent)
        if state.spec is None or state.spec.kind is Kind.JOB:
            raise NotFound(f"{agent!r} is a job, which has no replicas to scale; `shoal run {agent}` runs it now")
        self.note(state.pin(count, for_s, self.parts.clock()))
        self._saving.want()
        self.touch(agent)

    def run_job(self, agent: str) -> str:
        """Starts a run of a job beside its schedule and returns the run's id. Raises as `pin`."""
        state = self._taken_up(agent)
        if state.spec is None or state.spec.kind is not Kind.JOB:
            raise NotFound(f"{agent!r} is no job; jobs are agents with a `schedule`")
        run_id = f"{agent}-manual-{int(self.parts.clock() * 1000)}"
        state.manual_runs = (*state.manual_runs, run_id)
        self.touch(agent)
        return run_id

    def _taken_up(self, agent: str) -> AgentState:
        if not self._loaded:
            raise ControllerUnavailable("this controller has just begun, and takes up the fleet; try again in a moment")
        return self.state_of(agent)

    def state_of(self, agent: str) -> AgentState:
        """Raises NotFound, naming the agents that there are."""
        state = self.states.get(agent)
        if state is None:
            raise no_such_agent(agent, self.states)
        return state

    async def shut_down(self, *, data: bool) -> None:
        """Forgets the fleet, so that everything is drained and stopped; `run` returns when that is done."""
        stored = await self.parts.store.read_fleet()
        closed_at = stored.generation if stored is not None else 0
        if stored is not None and stored.fleet is not None:
            closed_at = await self.parts.store.write_fleet(
                None,
                directory=stored.directory,
                by="down",
                at=self.parts.clock(),
                expected_generation=stored.generation,
            )
        self._closing, self._closed_at = data, closed_at
        self._reopened.clear()
        self.apply()

    async def wait_stopped(self) -> None:
        """Returns when all is stopped. Raises Conflict when somebody starts a fleet meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            ends = [tasks.create_task(self.stopped.wait()), tasks.create_task(self._reopened.wait())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        if not self.stopped.is_set():
            by = self.stored.by if self.stored is not None else "somebody"
            raise Conflict(f"the fleet was started again by {by} while it was being stopped; `shoal status` shows it")

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
            background = self.watching.start(tasks)
            self._wake.clear()
            await self.run_pass()
            while self._closing is None or self._stale or self.states:
                await self._sleep_until_due()
                self._wake.clear()
                await self.run_pass()
            self.ends = True
            await end_tasks(background)
        if self._closing:
            await self.queues.remove_outside(lambda why: self.note(Event(self.parts.clock(), None, "refused", why)))
        await self.queues.close()
        await self.parts.platform.remove(data=bool(self._closing))
        self.stopped.set()

    async def take_over(self) -> None:
        """Waits for one complete look at the engine, and starts from it: counts come from the records, or where those
        are lost from what runs."""
        records: Mapping[str, AgentRecord] | None = None
        while records is None:
            try:
                self._observed = await self.parts.engine.observe()
                records = await self.parts.store.read_records() if self._observed.complete else None
            except Exception as error:  # noqa: BLE001 - told, and tried again; what runs goes on as it is meanwhile
                self.problems.failed("engine" if isinstance(error, EngineError) else "records", error)
            if records is None:
                await asyncio.sleep(RETRY_S)
        self.problems.say("engine", None)
        self.problems.say("records", None)
        self._clock.start()
        if self._runs:
            self._feed.expect_gateways()
        for name in sorted({*records, *self._observed.agents}):
            there = self._observed.agents.get(name, AgentObserved(name))
            record = records.get(name) or AgentRecord(desired=sum(there.counts.values()))
            state = self.states[name] = AgentState(name, None, there, record)
            state.take_over(self.parts.clock())

    async def run_pass(self) -> None:
        """One pass. Public for what drives the loop by itself: simulation, tests, measurements."""
        began = time.perf_counter()
        await self._pass()
        self.tally.add_pass(time.perf_counter() - began)

    async def _pass(self) -> None:
        self.passes += 1
        now = self._read_clock()
        acted = self._take_acted(now)
        self.problems.say("missing gateways", self._feed.missing())
        try:
            if not self._saving.at_rest:
                self._take_saved()
            await self._load(now)
            if not self._loaded:
                return  # who runs there may be wanted: nothing is done before it is known
            await self._look_at_engine(now)
            outcomes = self._step_all(now)
            if outcomes or self._feed.outdated:
                self._push()
                await self._act(outcomes, now)
            if outcomes or acted or self._saving.wanted or self._feed.outdated:
                await self._save(outcomes)
            if self.stored is not None and self.tasks is not None and not self._stale:
                self._pruning.begin(self.stored, self.tasks, settled=self.settled)
        except Exception as error:  # noqa: BLE001 - told, and tried again; the fleet goes on as it is meanwhile
            self.problems.failed("pass", error)
            self._dirty.update(self.states)
            self._looked_at = min(self._looked_at, now - LOOK_AGAIN_S + RETRY_S)
            self.publish()  # who waits for a change looks
            return
        self.problems.say("pass", None)

    def _read_clock(self) -> float:
        instant = self._clock.read()
        if instant.slept_s:
            for state in self.states.values():
                state.slept(instant.slept_s)
        if instant.set_back_s:
            for state in self.states.values():
                state.set_back(instant.set_back_s)
            self._load_at -= instant.set_back_s
        return instant.now

    async def _load(self, now: float) -> None:
        """Takes up the stored fleet. One that can't be used yet leaves the one before in force, and is tried again."""
        assert self.tasks is not None
        if self._reload and now >= self._load_at and not self._loading.busy:
            self._reload = False  # what is stored from now on asks for another load
            await self._loading.begin(self.tasks, queues_first=self._loaded or not self._runs)
        try:
            prepared = self._loading.take_ended()
            if prepared is not None:
                self._take_fleet(prepared, now)
        except Exception as error:  # noqa: BLE001 - the fleet before stays in force
            self._reload, self._load_at = True, now + RETRY_S
            self.problems.failed("load", error)
            return
        if prepared is not None:
            self._loaded, self._load_at = True, 0.0
            self.problems.say("load", None)

    @property
    def _runs(self) -> bool:
        """Whether anything was there at the last look. Who takes it over carries on without a broker that is away."""
        return any(agent.replicas for agent in self._observed.agents.values())

    def _take_fleet(self, prepared: Prepared, now: float) -> None:
        stored, fleet = prepared.stored, prepared.fleet
        for name, kept in self._ended.items():  # the fleet may have them again, or not any more
            self.states[name] = AgentState(name, None, AgentObserved(name), kept)
        self._ended.clear()
        if stored is not None and fleet is not None and prepared.wiring is not None:
            digests = {name: record.digest for name, record in stored.secrets.items()}
            self._templates = {
                name: template_of(fleet, name, digests, stored.nonces.get(name, "")) for name in fleet.agents
            }
            outside = rabbitmq_queues(fleet)
            self.wired = Wired(fleet.fleet, stored.generation, stored.directory, prepared.wiring, outside)
            self._last_fleet = fleet
            for name in dependencies_first(fleet.agents):
                self._take_spec(name, fleet, now)
                self.states[name] = self.states.pop(name)  # passes go through them in this order
            # One that was read before it was taken down, and took its time to be taken up, is not one that came after.
            if self._closing is not None and stored.generation > self._closed_at:
                self._closing = None
                self._reopened.set()
        for name, state in self.states.items():
            if fleet is None or name not in fleet.agents:
                state.leave(with_fleet=fleet is None)
                if fleet is None and self._closing:
                    state.record = state.record.pinned(None)
        self.stored = stored
        self._dirty.update(self.states)

    def _take_spec(self, name: str, fleet: Fleet, now: float) -> None:
        state = self.states.get(name)
        if state is None:
            state = self.states[name] = AgentState(name, None, AgentObserved(name))
            state.take_over(now)
        state.take_spec(fleet.agents[name], revision_of(self._templates[name]))

    async def _look_at_engine(self, now: float) -> None:
        last_s = abs(now - self._looked_at)
        if last_s < LOOK_AGAIN_S and (not self._look or (self._acting.under_way and last_s < LOOK_APART_S)):
            return
        self._look, self._looked_at = False, now
        self._observed = observed = await self.parts.engine.observe()
        self.problems.say("platform", "; ".join(observed.troubles) or None)
        self._acting.looked()
        for name, state in self.states.items():
            before = state.observed
            if take_in(state, observed):
                self._dirty.add(name)
                self.events.extend(events_between(before, state.observed, now))
        for name in sorted(observed.agents.keys() - self.states.keys()):
            kept = self._ended.pop(name, AgentRecord())
            self.states[name] = AgentState(name, None, observed.agents[name], kept)
            self._dirty.add(name)

    def _step_all(self, now: float) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        busy: set[str] = set()
        traffic = self.parts.gateways.traffic()
        for name, state in self.states.items():
            counts = traffic.get(name)
            if counts is not None and counts is not state.traffic:
                state.traffic = counts
                state.series = state.series.extended(now, counts)
            elif name not in self._dirty and not state.waits_on and ((due_at := state.next_at) is None or due_at > now):
                continue
            if state.acting:
                busy.add(name)
                continue
            if now < state.retry_at:  # the engine refused it a moment ago
                state.due_at = state.retry_at
                continue
            outcomes[name] = self._step_one(state, now)
        self._dirty = busy
        return outcomes

    def _step_one(self, state: AgentState, now: float) -> Outcome:
        chooses = self.parts.engine.capabilities.chooses_victims
        fleet = self.stored.fleet if self.stored is not None else None
        if state.spec is None or self.wired is None or fleet is None:
            waits = take_waits(state, self.states, now)
            return Outcome(step_removed(state), events=waits)
        template = self._templates[state.name]
        if state.spec.kind is Kind.JOB:
            return step_job(state, state.spec, template, self.wired, now)
        outcome = scale_agent(state, state.spec, now, gateways=bool(self.parts.gateways.live))
        waits = take_waits(state, self.states, now, reachable=self._observed.reachable)
        native = is_native(fleet, state.spec)
        step = step_agent(state, state.spec, template, self.wired, now, chooses_victims=chooses, native=native)
        return replace(outcome, actions=step.actions, events=(*outcome.events, *waits, *step.events))

    def _push(self) -> None:
        if self.wired is not None and self._last_fleet is not None:
            self._feed.push(self._feed.compose(self._last_fleet, self.wired), self.tasks)
            return
        # A controller that died while it took the fleet down: its addresses are not known any more, nor needed.
        for name, state in self.states.items():
            if state.leaving - state.left:
                state.left = state.leaving
                self.touch(name)

    async def _act(self, outcomes: Mapping[str, Outcome], now: float) -> None:
        assert self.tasks is not None
        await self._acting.carry_out(outcomes, self.tasks)
        self._take_acted(now)

    def _take_acted(self, now: float) -> bool:
        acted = self._acting.take_ended(now)
        if acted:
            self.look()
        return acted

    async def _save(self, outcomes: Mapping[str, Outcome]) -> None:
        assert self.tasks is not None
        for outcome in outcomes.values():
            self.events.extend(outcome.events)
            if outcome.decision is not None:
                self._saving.add(outcome.decision)
                self.tally.add_decision(outcome.decision)
        await self._saving.save(self.tasks)
        self._take_saved()

    def _take_saved(self) -> None:
        """Takes up what is stored now. Who asked for a change is answered once nothing is left to be."""
        for name, kept in self._saving.take_ended().items():
            del self.states[name]
            if kept is not None:
                self._ended[name] = kept
            self.tally.retain(self.states)
            self._wake.set()  # its route has to go from the gateways
        if self._saving.at_rest:
            self.publish()

    def publish(self) -> None:
        """Something is over: who waits for the next change looks."""
        self._published.set()
        self._published = asyncio.Event()

    # What wakes it.

    def wake(self) -> None:
        """Something is known that was not: look who it concerns."""
        self._wake.set()

    def touch(self, agent: str) -> None:
        """Something is known of this agent that was not."""
        self._dirty.add(agent)
        self._wake.set()

    async def _sleep_until_due(self) -> None:
        now = self.parts.clock()
        idle = (state for state in self.states.values() if not state.acting)
        due = min((at for state in idle if (at := state.next_at) is not None), default=None) if self._loaded else None
        if self._reload and not self._loading.busy:
            due = min(due or self._load_at, self._load_at)
        wait_s = LOOK_APART_S if self._look else LOOK_AGAIN_S
        wait_s = wait_s if due is None else min(wait_s, max(0.0, due - now))
        if self.problems.get("pass"):
            wait_s = RETRY_S
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return
