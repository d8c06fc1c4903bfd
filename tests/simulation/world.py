"""One seed, carried out: the real controller on values, and a world that does to it what the script says.

Everything is drawn from the seed and runs on virtual time, so a seed gives the same trace on every machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from shoal.control.controller import Controller
from shoal.control.memory_store import MemoryStore
from shoal.control.parts import Parts
from shoal.core.action import Action, ActionFailure, Remove
from shoal.core.observed import AgentObserved, Phase
from shoal.core.record import AgentRecord
from shoal.core.routing import Snapshot
from shoal.core.template import Template
from shoal.engines.memory.behaviour import Behaviour
from shoal.engines.memory.engine import MemoryEngine
from shoal.engines.memory.platform import MemoryPlatform
from shoal.errors import NotFound
from shoal.spec.model import Fleet
from tests.simulation.checks import START, Checks
from tests.simulation.gateways import SimGateway, SimLink, takes
from tests.simulation.ports import SimEngine, SimPlatform, SimQueues, SimStore
from tests.simulation.rest import longest_window_s, unrest
from tests.simulation.script import FAULTS_END_S, Happening, Script, changed, write_script
from tests.simulation.virtual_time import run_virtually

TICK_S = 0.1
QUIET_S = 20.0
_QUIET_LOOKS = 5  # half a second apart: what is due this very moment is still to come at one look
WELL = Behaviour(start_s=0.1, ready_s=0.3, stop_s=0.2)
_SHOWN = 100_000  # lines of the trace that are kept to be shown


@dataclass(slots=True, eq=False)
class Life:
    """One controller from its start to its death."""

    name: str
    started_at: float
    link: SimLink = field(init=False)
    controller: Controller = field(init=False)
    task: asyncio.Task[None] | None = None
    killed: bool = False
    calls_left: int | None = None
    absent_since: dict[str, float] = field(default_factory=dict[str, float])
    hold_since: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def alive(self) -> bool:
        return self.task is not None and not self.task.done() and not self.killed


@dataclass(frozen=True, slots=True)
class Result:
    """Of one seed. `trace` is a hash of all that happened; `drawn` counts faults and wishes by kind."""

    seed: int
    trace: str
    steps: int
    virtual_s: float
    drawn: Mapping[str, int]
    violations: tuple[str, ...]
    lines: tuple[str, ...] = ()


EngineFactory = Callable[..., MemoryEngine]


class World:
    """All of it. `engine` is a factory, so that a test can put a broken one in."""

    def __init__(self, script: Script, engine: EngineFactory = MemoryEngine) -> None:
        self.script = script
        self.loop = asyncio.get_running_loop()
        self.chance = random.Random(f"chance {script.seed}")
        self._nature = random.Random(f"nature {script.seed}")
        self.engine = engine(lambda: START + self.loop.time(), behaviour=self._behaviour)
        self.store, self.platform, self.queues = MemoryStore(), MemoryPlatform(), SimQueues(self)
        self.fleet: Fleet | None = None
        self.agents, self.spare = dict(script.agents), dict(script.spare)
        self.gateways = [SimGateway(self, f"g{number}") for number in range(script.gateways)]
        self.lives: list[Life] = []
        self.demand: dict[str, int] = {}
        self.depths: dict[str, int] = {"tasks": 0}
        self.disturbed_at: dict[str, float] = {}
        self.zero_pins: set[str] = set()
        self.checks = Checks(self)
        self.steps, self.drawn = 0, Counter[str]()
        self.violations: list[str] = []
        self.lines: deque[str] = deque(maxlen=_SHOWN)
        self._trace = hashlib.sha256()
        self._until: dict[str, float] = {}
        self._clock_off_s = 0.0
        self.added_at: dict[str, float] = {}  # by agent, in the loop's time
        self._history: deque[tuple[float, Mapping[str, AgentObserved]]] = deque([(0.0, {})])
        self._restart_at: float | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._serving: tuple[Mapping[str, AgentObserved] | None, frozenset[str]] = (None, frozenset())
        self._calm = False

    # What the ports ask.

    def wall(self) -> float:
        """The controllers' clock."""
        return START + self.loop.time() + self._clock_off_s

    def lasting(self, kind: str) -> bool:
        """Whether a fault of this kind goes on now."""
        return self._until.get(kind, -1.0) > self.loop.time()

    def latency(self) -> float:
        """How long a call takes."""
        if self.lasting("slow_calls"):
            return self.chance.uniform(0.1, 2.0)
        return self.chance.uniform(0.001, 0.02)

    async def call(self, life: Life, what: str) -> None:
        """Each call of a controller passes here, before and after its effect: it takes time, or is the last."""
        self.steps += 1
        if life.calls_left is not None:
            life.calls_left -= 1
        if not self.doomed(life):
            await asyncio.sleep(self.latency())
        if self.doomed(life):
            self.log("dies", f"{life.name} at {what}")
            self._kill(life)
            await asyncio.sleep(3600)

    def doomed(self, life: Life) -> bool:
        return life.calls_left is not None and life.calls_left <= 0

    def seen(self, *, not_before: float) -> Mapping[str, AgentObserved]:
        """What a look at the engine shows: now, or what it was a moment ago."""
        self._note_history()
        now = self.loop.time()
        at = now
        if self.lasting("stale"):
            at = max(now - 1.5, not_before)
        elif self.lasting("reordered"):
            at = max(now - self.chance.uniform(0.0, 2.0), not_before)
        return next(agents for when, agents in reversed(self._history) if when <= at)

    async def act(self, life: Life, action: Action) -> tuple[ActionFailure, ...]:
        """Lets one action take effect, and looks at what it did."""
        self.steps += 1
        before = self.engine.look().get(action.agent)
        failures = await self.engine.act([action])
        after = self.engine.look().get(action.agent)
        self._note_history()
        self.log("acts", f"{life.name} {_words(action)}{' refused' if failures else ''}")
        if isinstance(action, Remove) and action.revision is None:
            self.checks.forgotten(action.agent)
        if before is not after:
            self.checks.acted(life, action, before, after)
            self.checks.ticked(self.engine.look())
        return failures

    def stored(self, records: Mapping[str, AgentRecord | None]) -> None:
        self.log("stores", " ".join(f"{name}={r.desired if r else None}" for name, r in records.items()))
        self.checks.stored(records)

    def pushed(self, life: Life, snapshot: Snapshot, version: int) -> None:
        """A controller sent something to its gateways."""
        now = self.loop.time()
        listed = {endpoint.replica for route in snapshot.agents.values() for endpoint in route.endpoints}
        for agent in self.engine.look().values():
            for replica in agent.replicas:
                if replica.id in listed:
                    life.absent_since.pop(replica.id, None)
                else:
                    life.absent_since.setdefault(replica.id, now)
        for name, route in snapshot.agents.items():
            if route.hold:
                life.hold_since.setdefault(name, now)
            else:
                life.hold_since.pop(name, None)
        self.log("pushes", f"{life.name} {version} {_endpoints(snapshot)}")
        for gateway in self.gateways:
            if gateway.life is life:
                gateway.receive(life, snapshot, version)

    def applied(self, gateway: SimGateway, before: Snapshot | None, after: Snapshot, received_at: float) -> None:
        self.steps += 1
        self.log("uses", f"{gateway.name} {_endpoints(after)}")
        self.checks.applied(gateway, before, after, received_at)

    def serves(self, replica: str) -> bool:
        """Whether it really answers now."""
        agents = self.engine.look()
        if self._serving[0] is not agents:
            serving = frozenset(r.id for a in agents.values() for r in a.replicas if takes(r.phase, r.ready))
            self._serving = (agents, serving)
        return replica in self._serving[1]

    def listed(self, agent: str) -> set[str]:
        """To whom any gateway sends this agent's requests."""
        routes = [g.applied.agents.get(agent) for g in self.gateways if g.applied is not None]
        return {endpoint.replica for route in routes if route is not None for endpoint in route.endpoints}

    def share(self, agent: str, gateway: SimGateway) -> int:
        """How many requests are at this gateway."""
        whole, rest = divmod(self.demand.get(agent, 0), len(self.gateways))
        return whole + (1 if self.gateways.index(gateway) < rest else 0)

    def log(self, what: str, words: str) -> None:
        line = f"{self.loop.time():9.3f} {what:8} {words}"
        self._trace.update(line.encode() + b"\n")
        self.lines.append(line)

    def violated(self, rule: str) -> None:
        self.log("VIOLATES", rule)
        self.violations.append(f"{self.loop.time():.3f}: {rule}")

    # The run.

    async def run(self) -> Result:
        """The whole script, the healing, the rest."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            nature = tasks.create_task(self._pass_time())
            await self._write_fleet()
            self.start_controller()
            for happening in self.script.happenings:
                await asyncio.sleep(max(0.0, happening.at_s - self.loop.time()))
                await self._happen(happening)
            await asyncio.sleep(max(0.0, FAULTS_END_S - self.loop.time()))
            await self._heal()
            await self._come_to_rest()
            nature.cancel()
            for life in self.lives:
                self._kill(life)
        return Result(
            self.script.seed, self._trace.hexdigest()[:16], self.steps, self.loop.time(), dict(self.drawn),
            tuple(self.violations), tuple(self.lines),
        )  # fmt: skip

    def start_controller(self) -> Life:
        """A new controller on the same store and engine."""
        life = Life(f"c{len(self.lives) + 1}", self.loop.time())
        engine = SimEngine(self, life)
        life.link = SimLink(self, life)

        async def open_queues(_url: str, _fleet: str) -> SimQueues:
            return self.queues

        parts = Parts(
            engine, engine, SimPlatform(self, life), life.link, cast("Any", SimStore(self, life)), open_queues,
            self.wall,
        )  # fmt: skip
        life.controller = Controller(parts)
        assert self._tasks is not None
        life.task = self._tasks.create_task(self._live(life))
        self.lives.append(life)
        self._restart_at = None
        self.log("starts", life.name)
        for gateway in self.gateways:
            gateway.away_until = max(gateway.away_until, self.loop.time() + self.chance.uniform(0.02, 1.0))
        return life

    async def _live(self, life: Life) -> None:
        try:
            await life.controller.run()
        except Exception as error:  # noqa: BLE001 - what ends a controller is what we look for
            self.violated(f"{life.name} ended: {error!r}")
        else:
            self.violated(f"{life.name} ended by itself")
        self._restart_at = self.loop.time() + 1.0

    def _kill(self, life: Life) -> None:
        if life.task is not None and life.alive:
            life.killed = True
            life.task.cancel()
            for gateway in self.gateways:
                if gateway.life is life:
                    gateway.disconnect()
            if self._restart_at is None:
                self._restart_at = self.loop.time() + self.chance.choice((0.05, 0.5, 3.0, 8.0))

    @property
    def living(self) -> list[Life]:
        return [life for life in self.lives if life.alive]

    async def _pass_time(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.engine.tick()
            self._note_history()
            self.checks.ticked(self.engine.look())
            now = self.loop.time()
            living = self.living
            if not living and self._restart_at is not None and now >= self._restart_at:
                self.start_controller()
            for gateway in self.gateways:
                if gateway.life is not None and not gateway.life.alive:
                    gateway.disconnect()
                if gateway.life is None and living and now >= gateway.away_until:
                    self.log("connects", f"{gateway.name} {living[-1].name}")
                    gateway.connect(living[-1])
                gateway.tick()

    def _note_history(self) -> None:
        agents = self.engine.look()
        if self._history[-1][1] is not agents:
            self._history.append((self.loop.time(), agents))
            while len(self._history) > 2 and self._history[1][0] < self.loop.time() - 5.0:
                self._history.popleft()

    async def _write_fleet(self) -> None:
        stored = await self.store.read_fleet()
        self.fleet = Fleet.model_validate({"fleet": "f", "agents": self.agents, "brokers": {"main": {}}})
        await self.store.write_fleet(
            self.fleet, directory="/", by="seed", at=self.wall(), expected_generation=stored.generation if stored else 0
        )
        for life in self.living:
            life.controller.apply()

    # What happens.

    async def _happen(self, happening: Happening) -> None:
        self.drawn[happening.kind] += 1
        self.log("happens", f"{happening.kind} {happening.number:.3f} {happening.lasts_s:.2f}")
        do = getattr(self, f"_do_{happening.kind}", None)
        if do is not None:
            do(happening)
        elif happening.kind in {"pin", "unpin", "load"}:
            self._wish(happening)
        elif (agent := changed(self.agents, self.spare, happening)) is not None:
            if happening.kind in {"schedule", "add", "remove"}:
                self.checks.scheduled_anew(agent)
            if happening.kind == "add":
                self.added_at[agent] = self.loop.time()
            await self._write_fleet()
        elif happening.lasts_s:
            self._until[happening.kind] = self.loop.time() + happening.lasts_s

    def _wish(self, happening: Happening) -> None:
        rng = random.Random(f"wish {happening.number}")
        name = rng.choice(sorted(self.agents))
        if happening.kind == "load":
            self.demand[name] = rng.choice((0, 0, 3, 8, 15, 40))
            self.depths["tasks"] = rng.choice((0, 0, 5, 15, 60))
            return
        count = rng.choice((0, 1, 2, 3, 5)) if happening.kind == "pin" else None
        for life in self.living[-1:]:
            try:
                life.controller.pin(name, count, rng.choice((None, 5.0, 20.0)))
            except NotFound:
                return
            if count == 0:
                self.zero_pins.add(name)

    def _victim(self, happening: Happening) -> tuple[str, str] | None:
        running = [
            (name, r.id) for name, a in sorted(self.engine.look().items()) for r in a.replicas
            if r.phase is Phase.RUNNING
        ]  # fmt: skip
        if not running:
            return None
        agent, replica = running[int(happening.number * len(running))]
        if self.serves(replica):
            self.disturbed_at[agent] = self.loop.time()
        self.log("hits", replica)
        return agent, replica

    def _do_crash(self, happening: Happening) -> None:
        if (victim := self._victim(happening)) is not None:
            self.engine.crash(victim[1])

    def _do_lose(self, happening: Happening) -> None:
        if (victim := self._victim(happening)) is not None:
            self.engine.lose(victim[1])

    def _do_unready(self, happening: Happening) -> None:
        if (victim := self._victim(happening)) is not None:
            self.engine.set_ready(victim[1], False, "too busy")
            self.loop.call_later(happening.lasts_s, self._ready_again, *victim)

    def _ready_again(self, agent: str, replica: str) -> None:
        try:
            self.engine.set_ready(replica, True)
        except NotFound:
            return

    def _do_kill(self, happening: Happening) -> None:
        for life in self.living[-1:]:
            self._kill(life)

    def _do_kill_at_call(self, happening: Happening) -> None:
        for life in self.living[-1:]:
            life.calls_left = 1 + int(happening.number * 12)

    def _do_two_controllers(self, happening: Happening) -> None:
        if len(self.living) != 1:
            return
        older = self.living[0]
        younger = self.start_controller()
        # Never beyond the faults' end, which leaves one of them.
        lasts_s = max(0.0, min(happening.lasts_s, 4.0, FAULTS_END_S - self.loop.time()))
        self.loop.call_later(lasts_s, self._kill, older)
        if happening.number < 0.5:  # else they stay on the older one's line until it is dead
            for gateway in self.gateways:
                if gateway.life is older:
                    gateway.disconnect()
        self.log("beside", f"{younger.name} {older.name}")

    def _do_gateway_gone(self, happening: Happening) -> None:
        gateway = self.gateways[int(happening.number * len(self.gateways))]
        gateway.disconnect()
        gateway.away_until = self.loop.time() + happening.lasts_s

    def _do_gateway_joins(self, happening: Happening) -> None:
        if len(self.gateways) < 5:
            self.gateways.append(SimGateway(self, f"g{len(self.gateways)}"))

    def _do_clock_forward(self, happening: Happening) -> None:
        self._clock_off_s += 3600.0

    def _do_clock_back(self, happening: Happening) -> None:
        self._clock_off_s -= 3600.0

    def _do_clock_step(self, happening: Happening) -> None:
        self._clock_off_s += (happening.number - 0.5) * 40.0

    def _behaviour(self, template: Template) -> Behaviour:
        if self._calm:
            return WELL
        rng = self._nature
        start_s, ready_s, stop_s = rng.uniform(0.0, 1.0), rng.uniform(0.05, 1.0), rng.uniform(0.0, 2.0)
        job_s, exit_code = rng.uniform(0.1, 20.0), rng.choice((0, 0, 0, 1))
        bad = template.environment.get("BAD")
        if bad == "crash":
            return Behaviour(start_s, 5.0, stop_s, crash_after_s=0.3, job_s=job_s)
        if "slow_start" in self.script.restless and rng.random() < 0.15:
            self.drawn["slow_start"] += 1
            ready_s = rng.uniform(4.0, 15.0)
        never = bad == "never_ready"
        if "never_ready" in self.script.restless and rng.random() < 0.1:
            self.drawn["never_ready"] += 1
            never = True
        return Behaviour(start_s, ready_s, stop_s, never_ready=never, job_s=job_s, job_exit_code=exit_code)

    # The end.

    async def _heal(self) -> None:
        """All faults end; what people wished stays wished, but for pins and versions that can't run."""
        self.log("heals", "")
        self._calm = True
        self._until.clear()
        self.engine.mend(WELL)
        for life in self.lives:
            life.calls_left = None
        for life in self.living[:-1]:
            self._kill(life)
        for gateway in self.gateways:
            gateway.away_until = min(gateway.away_until, self.loop.time() + 1.0)
        if not self.living:
            self.start_controller()
        for name, agent in self.agents.items():
            if "BAD" in agent.get("environment", {}):
                self.agents[name] = {**agent, "environment": {"VERSION": "mended"}}
        await self._write_fleet()

    async def _come_to_rest(self) -> None:
        deadline, quiet_looks, before = self.loop.time() + 150.0 + longest_window_s(self), 0, self._activity()
        while quiet_looks < _QUIET_LOOKS:
            if self.loop.time() >= deadline:
                self.violated(f"no rest: {'; '.join(unrest(self)) or 'something always moves'}")
                return
            await asyncio.sleep(0.5)
            self._release_pins()
            quiet_looks = 0 if unrest(self) or self._activity() != before else quiet_looks + 1
            before = self._activity()
        self.log("rests", "")
        acts, pushes = self._activity()
        await asyncio.sleep(QUIET_S)
        if self._activity() != (acts, pushes):
            self.violated(f"something moved at rest: {', '.join(self._activity()[0][len(acts) :]) or 'a snapshot'}")
        if what := unrest(self):
            self.violated(f"the rest did not last: {'; '.join(what)}")
        self.checks.jobs_at_rest(await self.store.read_records())

    def _release_pins(self) -> None:
        for life in self.living:
            for name, state in life.controller.states.items():
                if state.spec is not None and state.record.pin is not None:
                    life.controller.pin(name, None)

    def _activity(self) -> tuple[list[str], int]:
        jobs = {name for name, spec in self.fleet.agents.items() if spec.schedule} if self.fleet else set[str]()
        acts = [_words(action) for action in self.engine.acted if action.agent not in jobs]
        return acts, sum(life.link.version for life in self.lives)


def _words(action: Action) -> str:
    parts = [getattr(action, key, None) for key in ("agent", "revision", "count", "victims", "run_id")]
    return f"{type(action).__name__} {' '.join(str(part) for part in parts if part is not None)}"


def _endpoints(snapshot: Snapshot) -> str:
    return " ".join(
        f"{name}[{' '.join(e.replica.rpartition('-')[2] for e in route.endpoints)}{' hold' if route.hold else ''}]"
        for name, route in sorted(snapshot.agents.items())
    )


def simulate(seed: int, engine: EngineFactory = MemoryEngine) -> Result:
    """One seed from its start to its rest, in virtual time."""

    async def run() -> Result:
        return await World(write_script(seed), engine).run()

    return run_virtually(run())
