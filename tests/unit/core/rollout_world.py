"""A small world for rollouts: replicas as values, moved on a second at a time, and the core's steps carried out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shoal.core.action import EnsureRevision, Remove, Scale
from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.core.reconcile import Step, Wanted, reconcile
from shoal.core.rollout import Rollout, advance, begin, complete, limits
from shoal.core.template import Template
from shoal.spec.model import Agent, Health, Kind, Placement, Resources

STOP_S = 2


@dataclass(frozen=True)
class Version:
    """How replicas of a revision go: ready so long after their start, or never."""

    revision: str
    ready_s: int | None = 2


@dataclass
class World:
    """`agent` gives the settings of the rollout. The gateways agree to each drain within a second; the engine notes a
    count at once, and begins to end who is above it `lag_s` later."""

    agent: Agent
    count: int
    version: Version
    now: float = 0.0
    replicas: dict[str, Replica] = field(default_factory=dict[str, Replica])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    ready_s: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    stopped_at: dict[str, float] = field(default_factory=dict[str, float])
    rollout: Rollout | None = None
    leaving: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    made: int = 0
    generation: int = 1
    lag_s: int = 0
    doomed_at: dict[str, float] = field(default_factory=dict[str, float])  # of who is to go, when it was told

    @property
    def observed(self) -> AgentObserved:
        return AgentObserved("a", dict(self.counts), tuple(self.replicas.values()))

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def change(self, version: Version) -> None:
        self.version, self.generation = version, self.generation + 1

    def working(self) -> list[Replica]:
        return [r for r in self.replicas.values() if r.phase is Phase.RUNNING and r.ready]

    def serving(self) -> list[Replica]:
        """Who works, is not taken out, and is not about to end."""
        return [r for r in self.working() if r.id not in self.leaving and r.id not in self.doomed_at]

    def step(self) -> Step:
        """A second goes by, then one pass."""
        self.now += 1
        self._move()
        self.ready_s[self.version.revision] = self.version.ready_s
        observed, healthy = self.observed, len(self.serving())
        self.rollout = begin(self.rollout, self.version.revision, self.generation, observed, now=self.now)
        self.rollout = advance(self.rollout, self.agent, observed, desired=self.count, healthy=healthy, now=self.now)
        target = self.rollout.target(observed)
        forward = target == self.rollout.revision
        step = reconcile(
            Wanted(
                "a", target, template(self.agent), self.count, update=self.agent.update, now=self.now,
                stable=self.rollout.fallback,
            ),
            observed, leaving=self.leaving, left=self.left, healthy=healthy, chooses_victims=True,
        )  # fmt: skip
        if step.settled and forward:
            self.rollout = complete(self.rollout, now=self.now)
        self.left = (self.left & step.leaving) | (self.leaving & step.leaving)
        self.leaving = step.leaving
        self._carry_out(step)
        return step

    def crash(self, identity: str) -> None:
        replica = self.replicas[identity]
        if replica.phase is Phase.RUNNING:
            self.replicas[identity] = replace(
                replica, ready=False, ready_at=None, started_at=self.now, restarts=replica.restarts + 1,
                reason="exit code 1",
            )  # fmt: skip

    def _carry_out(self, step: Step) -> None:
        for action in step.actions:
            if isinstance(action, Scale):
                self._set_count(action)
            elif isinstance(action, Remove):
                assert action.revision is not None
                del self.counts[action.revision]
            elif isinstance(action, EnsureRevision):
                self.counts.setdefault(action.revision, 0)

    def _set_count(self, action: Scale) -> None:
        """As a Deployment: who is to go is chosen anew with each count, the named ones first."""
        of = [r for r in self.replicas.values() if r.revision == action.revision and r.phase is Phase.RUNNING]
        of.sort(key=lambda r: (r.id not in action.victims, r.id not in self.doomed_at, -(r.ordinal or 0)))
        doomed = {r.id for r in of[: max(0, len(of) - action.count)]}
        for each in of:
            if each.id not in doomed:
                self.doomed_at.pop(each.id, None)
            elif not self.lag_s:
                self._stop(each.id)
            else:
                self.doomed_at.setdefault(each.id, self.now)
        for _ in range(action.count - len(of)):
            self._make(action.revision)
        self.counts[action.revision] = action.count

    def _make(self, revision: str) -> None:
        self.made += 1
        ordinal = None
        if self.agent.stateful:
            held = {r.ordinal for r in self.replicas.values()}
            ordinal = next(number for number in range(len(held) + 1) if number not in held)
        self.replicas[f"a-{self.made}"] = Replica(
            f"a-{self.made}", "a", revision, Phase.RUNNING, host="h", port=80, ordinal=ordinal,
            created_at=self.now, started_at=self.now,
        )  # fmt: skip

    def _stop(self, identity: str) -> None:
        self.doomed_at.pop(identity, None)
        if self.replicas[identity].phase is not Phase.STOPPING:
            self.replicas[identity] = replace(self.replicas[identity], phase=Phase.STOPPING, ready=False)
            self.stopped_at[identity] = self.now

    def _move(self) -> None:
        for identity in [each for each, at in self.doomed_at.items() if self.now >= at + self.lag_s]:
            self._stop(identity)
        for identity, replica in list(self.replicas.items()):
            takes = self.ready_s.get(replica.revision)
            if replica.phase is Phase.STOPPING:
                if self.now >= self.stopped_at[identity] + STOP_S:
                    del self.replicas[identity]
            elif not replica.ready and takes is not None and self.now >= (replica.started_at or 0.0) + takes:
                self.replicas[identity] = replace(replica, ready=True, ready_at=self.now, reason="")


def template(agent: Agent) -> Template:
    return Template(
        agent="a", kind=Kind.SERVICE, image=None, command=("x",), working_dir=None, environment={}, port=80,
        protocol="http", health=Health(), resources=Resources(), placement=Placement(), stateful=agent.stateful,
        volumes=(), secrets=(), calls=(), queue=None, publishes=(), stop_grace_period_s=10.0,
    )  # fmt: skip


def service(**update: object) -> Agent:
    return Agent.model_validate({"command": "x", "port": 80, "update": {"progress_deadline": 30, **update}})


def least(world: World) -> int:
    return world.count - limits(world.agent.update, world.count)[1]


def most(world: World) -> int:
    return world.count + limits(world.agent.update, world.count)[0]
