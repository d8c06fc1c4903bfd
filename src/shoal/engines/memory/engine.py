"""The memory engine: the whole of `Engine` and `Inspector` as values, on the caller's clock.

Time passes when somebody looks: `observe`, `act` and `tick` take every step that is due by then, each at its own
instant, so that a simulation may jump from `next_due` to `next_due`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from shoal.core.action import Action, ActionFailure, Autoscale
from shoal.core.observed import AgentObserved, CountOwner, Observed
from shoal.core.signals import Usage
from shoal.engines.dispatch import carry_out
from shoal.engines.memory.agent import MemoryAgent
from shoal.engines.memory.behaviour import Behaviour, Behaviours
from shoal.engines.memory.timeline import Timeline
from shoal.engines.protocol import Ability, Capabilities, Command, LogLine, Support, not_running
from shoal.engines.view import View
from shoal.errors import EngineError, EngineUnavailable, NotFound

CAPABILITIES = Capabilities(
    engine="memory",
    chooses_victims=True,
    runs_images=True,
    table={"agents": Ability(Support.NATIVE, "values only: no process runs")},
)


class MemoryEngine:
    """A fake engine. `clock` gives epoch seconds; nothing happens between two looks at it.

    What a test sets: `behave` (how replicas and jobs go), `crash`, `set_ready`, `lose`, `set_count`, `finish_run`,
    `fail_next` (an action's failure), `unavailable`, `incomplete`, `reachable`, `mend`, `put_log`, `put_usage`; `acted`
    holds every action that was asked.
    """

    def __init__(self, clock: Callable[[], float], *, behaviour: Behaviours | None = None) -> None:
        self.unavailable: str | None = None
        self.incomplete = False
        self.reachable = True
        self.acted: list[Action] = []
        self.capabilities: Capabilities = CAPABILITIES
        self._clock = clock
        self._timeline = Timeline(clock)
        self._behaviour: Behaviours = behaviour or Behaviour()
        self._behaviours: dict[str, Behaviours] = {}
        self._agents: dict[str, MemoryAgent] = {}
        self._view = View()
        self._failures: list[tuple[Callable[[Action], bool], str]] = []
        self._logs: list[LogLine] = []
        self._usage: dict[str, Usage] = {}
        self._addresses = 0

    # The port.

    async def observe(self) -> Observed:
        """Every agent; the same object again for one of which nothing changed."""
        self._reach()
        return Observed(self._clock(), self.look(), complete=not self.incomplete, reachable=self.reachable)

    def look(self) -> Mapping[str, AgentObserved]:
        """What there is now, whether or not the engine can be reached."""
        self._timeline.advance()
        return self._view.of(self._agents)

    def changes(self) -> AsyncIterator[None]:
        """Yields after every change since the call; time that passes is a change once `observe` or `tick` saw it."""
        return self._view.changes()

    async def act(self, actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
        """Carries out each action at once, save those that `fail_next` named."""
        self._reach()
        self._timeline.advance()
        failures: list[ActionFailure] = []
        for action in actions:
            self.acted.append(action)
            try:
                self._refuse(action)
                if isinstance(action, Autoscale):
                    self._agent(action.agent).autoscale(action)
                else:
                    carry_out(action, self._agents, self._agent)
            except EngineError as error:
                failures.append(ActionFailure(action, str(error)))
        return tuple(failures)

    async def logs(
        self, *agents: str, follow: bool = False, since: float | None = None, tail: int | None = None
    ) -> AsyncGenerator[LogLine]:
        """What `put_log` gave for the agents, in that order."""
        position = len(self._logs)
        left: dict[str, int] = {}
        found: list[LogLine] = []
        for line in reversed(self._logs):
            if line.agent in agents and (since is None or line.at is None or line.at >= since):
                left[line.replica] = left.get(line.replica, 0) + 1
                if tail is None or left[line.replica] <= tail:
                    found.append(line)
        for line in reversed(found):
            yield line
        changes = self.changes()
        while follow:
            while position < len(self._logs):
                position += 1
                if self._logs[position - 1].agent in agents:
                    yield self._logs[position - 1]
            await anext(changes)

    async def usage(self) -> Mapping[str, Usage]:
        """What `put_usage` gave."""
        self._reach()
        return dict(self._usage)

    def exec(self, replica: str, argv: Sequence[str], *, tty: bool) -> AbstractAsyncContextManager[Command]:
        """There is no process to run one beside."""
        raise not_running(replica)

    # What a test or a simulation does to it.

    @property
    def next_due(self) -> float | None:
        """The instant of the next change that time alone will bring."""
        return self._timeline.next_due

    def tick(self) -> None:
        """Takes the steps that are due, and so wakes `changes`."""
        self._timeline.advance()

    def mend(self, behaviour: Behaviour) -> None:
        """Whatever lives, and all that is started later, behaves so from now on."""
        self._behaviour, self._behaviours = behaviour, {}
        for agent in self._agents.values():
            agent.behaviour = behaviour
            agent.mend(behaviour)

    def behave(self, agent: str, behaviour: Behaviours) -> None:
        """How replicas and runs of the agent go that start from now on."""
        self._behaviours[agent] = behaviour
        if agent in self._agents:
            self._agents[agent].behaviour = behaviour

    def crash(self, replica: str, exit_code: int = 1, reason: str = "", last_log: tuple[str, ...] = ()) -> None:
        """The replica ends by itself, waits in BACKOFF and is started again. Raises NotFound."""
        self._holder(replica).crash(replica, exit_code, reason, last_log)

    def set_ready(self, replica: str, ready: bool, reason: str = "") -> None:
        """The replica's probe flips. Raises NotFound."""
        self._holder(replica).set_ready(replica, ready, reason)

    def lose(self, replica: str) -> None:
        """The replica is gone at once, with its node; another takes its place. Raises NotFound."""
        self._holder(replica).lose(replica)

    def set_count(self, agent: str, revision: str, count: int, owner: CountOwner | None) -> None:
        """Somebody else than Shoal sets it; `None`: the autoscaler to which it was handed over."""
        self._timeline.advance()
        self._agents[agent].set_count(revision, count, owner)

    def finish_run(self, agent: str, run_id: str, exit_code: int = 0, reason: str = "") -> None:
        """Ends the attempt of the run that goes on."""
        self._timeline.advance()
        self._agents[agent].finish_run(run_id, exit_code, reason)

    def fail_next(self, reason: str, when: Callable[[Action], bool] = lambda action: True) -> None:
        """The next action for which `when` holds fails with the reason, once."""
        self._failures.append((when, reason))

    def put_log(self, line: LogLine) -> None:
        """The replica wrote a line."""
        self._logs.append(line)
        self._view.wake()

    def put_usage(self, replica: str, usage: Usage | None) -> None:
        """What the replica uses; `None`: it can't be measured."""
        if usage is None:
            self._usage.pop(replica, None)
        else:
            self._usage[replica] = usage

    # Within.

    def _reach(self) -> None:
        if self.unavailable is not None:
            raise EngineUnavailable(self.unavailable)

    def _refuse(self, action: Action) -> None:
        for position, (when, reason) in enumerate(self._failures):
            if when(action):
                del self._failures[position]
                raise EngineError(reason)

    def _agent(self, name: str) -> MemoryAgent:
        if name not in self._agents:
            agent = MemoryAgent(name, self._timeline, self._next_address, lambda: self._view.touch(name))
            agent.behaviour = self._behaviours.get(name, self._behaviour)
            self._agents[name] = agent
        return self._agents[name]

    def _holder(self, replica: str) -> MemoryAgent:
        self._timeline.advance()
        agent = self._agents.get(replica.rpartition("-")[0])
        if agent is None or all(value.id != replica for value in agent.view.replicas):
            raise NotFound(f"no replica {replica}")
        return agent

    def _next_address(self) -> str:
        self._addresses += 1
        return f"10.{self._addresses >> 16 & 255}.{self._addresses >> 8 & 255}.{self._addresses & 255}"
