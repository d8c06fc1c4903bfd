"""The engine on Docker Swarm: replicas are tasks of services, and Swarm places, starts and replaces them.

Nothing of a fleet is remembered here but what can be asked again: whoever opens this engine next, on whichever manager,
finds the same.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from shoal.core.action import Action, ActionFailure, Autoscale, EnsureRevision, Remove, RunJob, Scale
from shoal.core.observed import AgentObserved, Observed, Phase
from shoal.core.signals import Usage
from shoal.engines.dispatch import act_in_order
from shoal.engines.protocol import Capabilities, Command, LogLine, no_autoscaler, not_running
from shoal.engines.swarm import names
from shoal.engines.swarm.capabilities import CAPABILITIES
from shoal.engines.swarm.docker import Docker, DockerError
from shoal.engines.swarm.images import Images
from shoal.engines.swarm.logs import Logs
from shoal.engines.swarm.names import Role, fleet_labels, object_name
from shoal.engines.swarm.ordinals import Ordinals
from shoal.engines.swarm.own_tasks import troubles_of
from shoal.engines.swarm.read import Probe, Seen, broken_tasks, ended_runs, is_agents, read_agents, replica_of
from shoal.engines.swarm.render import (
    START_PATH,
    START_SCRIPT,
    Ids,
    needs_start,
    private_variables,
    render_revision,
    render_run,
    secret_files,
    start_script_name,
)
from shoal.errors import EngineError

RUNS_KEPT = 20
LAST_LINES = 20
_POLL_MOVING_S, _POLL_S = 0.25, 0.5
_AT_REST_S, _LOOK_S = 2.0, 0.1
_LAST_WORDS_S = 2.0  # within which a node tells them: all looks wait for it
_STEADY = (Phase.RUNNING, Phase.FAILED, Phase.SUCCEEDED)


def _nowhere_to_run(node: str, container: str, argv: Sequence[str], tty: bool) -> AbstractAsyncContextManager[Command]:
    raise EngineError("this engine was given no agents of nodes that could run a command")


async def _nothing_measured() -> Mapping[str, Usage]:
    return {}


class SwarmEngine:
    """Implements `Engine` and `Inspector` for one fleet, whose network is there already.

    `probes` gives what the nodes' agents know of each task's container, `usage` what they measured, by task; `mask`
    takes secrets out of what replicas write; `news` is set when something is known that was not, such as a probe's
    answer; `heard` gives the nodes whose agent has told anything, where agents are listened to, and `all_heard` whether
    every one was that could be; `run` runs a command, by node, container, words and whether with a terminal; `clock`
    gives epoch seconds.
    """

    def __init__(
        self,
        docker: Docker,
        fleet: str,
        *,
        images: Images | None = None,
        probes: Callable[[], Mapping[str, Probe]] = dict,
        usage: Callable[[], Awaitable[Mapping[str, Usage]]] = _nothing_measured,
        mask: Callable[[str], str] = str,
        news: asyncio.Event | None = None,
        heard: Callable[[], frozenset[str]] | None = None,
        all_heard: Callable[[], bool] = lambda: True,
        run: Callable[[str, str, Sequence[str], bool], AbstractAsyncContextManager[Command]] = _nowhere_to_run,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.capabilities: Capabilities = CAPABILITIES
        self._docker, self._fleet, self._clock = docker, fleet, clock
        self._images = images or Images(docker)
        self._probes, self._usage = probes, usage
        self._ordinals = Ordinals(docker, fleet)
        self._logs, self._mask = Logs(docker, fleet), mask
        self._network = ""
        self._agents: dict[str, AgentObserved] = {}
        self._task_of: dict[str, str] = {}  # by replica's id
        self._last_logs: dict[str, tuple[str, ...]] = {}
        self._ended: dict[str, str] | None = None  # by run
        self._heard, self._all_heard = heard, all_heard
        self._news, self._run_command = news or asyncio.Event(), run

    # What control asks.

    async def observe(self) -> Observed:
        """Every agent; the same object again for one of which nothing changed."""
        at = self._clock()
        services, tasks, nodes = await asyncio.gather(
            self._docker.services({names.FLEET: self._fleet}),
            self._docker.tasks({names.FLEET: self._fleet}),
            self._docker.nodes(),
        )
        seen = Seen(
            services=services,
            tasks=tasks,
            network=await self._network_id(),
            hosts={node["ID"]: node["Description"]["Hostname"] for node in nodes},
            nodes_down=frozenset(node["ID"] for node in nodes if node["Status"]["State"] != "ready"),
            nodes_unheard=frozenset(node["ID"] for node in nodes) - self._heard() if self._heard else frozenset(),
            probes=self._probes(),
        )
        await self._read_last_words(broken_tasks(seen))
        seen = replace(seen, last_logs=self._last_logs)
        await self._ordinals.pin(services, tasks)
        seen = await self._write_down_ends(seen)
        found = read_agents(seen)
        self._agents = {
            name: self._agents[name] if self._agents.get(name) == agent else agent for name, agent in found.items()
        }
        self._task_of = {replica_of(task): task["ID"] for task in tasks if is_agents(task)}
        return Observed(at, self._agents, complete=self._all_heard(), troubles=troubles_of(tasks, seen.hosts, at))

    async def changes(self) -> AsyncIterator[None]:
        """Yields a few times a second: Swarm tells nobody of tasks."""
        while True:
            moving = any(r.phase not in _STEADY or not r.ready for a in self._agents.values() for r in a.replicas)
            moving |= any(run.phase is Phase.PENDING for a in self._agents.values() for run in a.runs)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_MOVING_S if moving else _POLL_S):
                    await self._news.wait()
            self._news.clear()
            yield

    async def act(self, actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
        """Carries the actions out in order. Raises EngineUnavailable where Docker is away."""
        return await act_in_order(actions, self._carry_out)

    # What people ask.

    async def logs(
        self, *agents: str, follow: bool = False, since: float | None = None, tail: int | None = None
    ) -> AsyncGenerator[LogLine]:
        """What the replicas wrote of which Swarm still knows the tasks, the oldest first."""
        now = self._clock()
        for line in await self._logs.read(agents, since, tail):
            yield self._masked(line)
        if follow:
            async with contextlib.aclosing(self._logs.follow(agents, now)) as lines:
                async for line in lines:
                    yield self._masked(line)

    async def usage(self) -> Mapping[str, Usage]:
        """Use by replica id, as the nodes' agents measured it."""
        by_task = await self._usage()
        return {replica: by_task[task] for replica, task in self._task_of.items() if task in by_task}

    @contextlib.asynccontextmanager
    async def exec(self, replica: str, argv: Sequence[str], *, tty: bool) -> AsyncGenerator[Command]:
        """By the agent of the node on which the replica runs."""
        tasks = [task for task in await self._docker.tasks({names.FLEET: self._fleet}) if is_agents(task)]
        running = [task for task in tasks if replica_of(task) == replica and task["Status"]["State"] == "running"]
        if not running:
            raise not_running(replica)
        task = max(running, key=lambda each: each["CreatedAt"])
        container = task["Status"]["ContainerStatus"]["ContainerID"]
        given = task["Spec"]["ContainerSpec"].get("Configs") or ()
        started = any(each["File"]["Name"] == START_PATH for each in given)  # by what gives it secrets' variables, GPUs
        words = ["/bin/sh", START_PATH, *argv] if started else argv
        async with self._run_command(task["NodeID"], container, words, tty) as command:
            yield command

    # Within.

    def _masked(self, line: LogLine) -> LogLine:
        return LogLine(line.replica, line.agent, self._mask(line.text), line.stream, line.at)

    async def _carry_out(self, action: Action) -> None:
        match action:
            case EnsureRevision():
                await self._ensure(action)
            case Scale():
                await self._scale(action)
            case Autoscale():
                raise no_autoscaler(action.agent)
            case RunJob():
                await self._run(action)
            case Remove():
                await self._remove(action)

    async def _ensure(self, action: EnsureRevision) -> None:
        """Makes the service of the revision. One that is there stays as it is: another one would restart replicas."""
        name = self._name(action.agent, action.revision)
        if await self._find(name) is not None:
            return
        template = action.template
        private = await self._hide(action.agent, private_variables(action.environment))
        files = secret_files(self._fleet, template, private)
        image = self._images.check(action.agent, template.image)
        argv = template.command
        if argv is None and needs_start(template, files):
            argv = await self._images.command(action.agent, image)
        user = template.user or await self._images.user(image)
        spec = render_revision(self._fleet, action, await self._ids(), image, argv, files, user)
        await self._docker.create_service(spec, auth=self._images.auth(image))

    async def _scale(self, action: Scale) -> None:
        service = await self._known(action.agent, action.revision)
        if names.STATEFUL in service["Spec"]["Labels"]:
            await self._ordinals.scale(service, action)
            return

        def change(spec: dict[str, Any]) -> dict[str, Any] | None:
            if spec["Mode"]["Replicated"]["Replicas"] == action.count:
                return None
            spec["Mode"]["Replicated"]["Replicas"] = action.count
            return spec

        image = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        await self._docker.update_service(service["ID"], change, auth=self._images.auth(image))

    async def _run(self, action: RunJob) -> None:
        if await self._find(self._name(action.run_id)) is not None:
            return
        revision = await self._known(action.agent, action.revision)
        spec = render_run(self._fleet, revision["Spec"], action, self._clock())
        image = spec["TaskTemplate"]["ContainerSpec"]["Image"]
        await self._docker.create_service(spec, auth=self._images.auth(image))
        await self._forget_old_runs(action.agent)

    async def _forget_old_runs(self, agent: str) -> None:
        known = self._agents.get(agent)
        ended = [run for run in known.runs if run.phase in (Phase.SUCCEEDED, Phase.FAILED)] if known else []
        for run in ended[: max(0, len(ended) - RUNS_KEPT + 1)]:
            await self._docker.remove_service(self._name(run.run_id))
            if self._ended and self._ended.pop(run.run_id, None) is not None:
                await self._docker.remove_config(self._name("shoal-ended", run.run_id))

    async def _remove(self, action: Remove) -> None:
        wanted = {names.FLEET: self._fleet, names.AGENT: action.agent}
        if action.revision is not None:
            wanted[names.REVISION] = action.revision
        for service in await self._docker.services(wanted):
            if action.revision is None or names.role_of(service["Spec"]["Labels"]) != Role.RUN:
                await self._remove_at_rest(service["ID"])

    async def _remove_at_rest(self, service: str) -> None:
        """Not in the instant in which Swarm removes a task of it: that may end the manager (swarmkit's
        SetServiceTasksRemove takes for granted that each task is still there)."""
        with contextlib.suppress(TimeoutError):  # where a node is away it may last
            async with asyncio.timeout(_AT_REST_S):
                while any(task["DesiredState"] == "remove" for task in await self._docker.tasks(service=service)):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)
        await self._docker.remove_service(service)

    async def _known(self, agent: str, revision: str) -> dict[str, Any]:
        service = await self._find(self._name(agent, revision))
        if service is None:
            raise EngineError(f"agents.{agent}: revision {revision} is not known; ensure it first")
        return service

    async def _find(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._docker.service(name)
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    def _name(self, *parts: str) -> str:
        return object_name(self._fleet, *parts)

    async def _ids(self) -> Ids:
        """What services refer to; the script that starts commands is made with the first that needs it."""
        name = start_script_name(self._fleet)
        labels = fleet_labels(self._fleet, Role.CONFIG)
        secrets = await self._docker.secrets({names.FLEET: self._fleet})
        return Ids(
            network=await self._network_id(),
            start_script=await self._docker.create_config(name, START_SCRIPT.encode(), labels),
            secrets={secret["Spec"]["Name"]: secret["ID"] for secret in secrets},
        )

    async def _hide(self, agent: str, variables: Mapping[str, str]) -> dict[str, str]:
        """Puts variables that hold credentials into secrets: by variable the name of the secret."""
        hidden: dict[str, str] = {}
        for variable, value in variables.items():
            digest = hashlib.sha256(value.encode()).hexdigest()[:12]
            hidden[variable] = object_name(self._fleet, f"shoal-{agent}", variable, digest)
            labels = fleet_labels(self._fleet, Role.SECRET, agent=agent)
            await self._docker.create_secret(hidden[variable], value.encode(), labels)
        return hidden

    async def _network_id(self) -> str:
        if not self._network:
            found = await self._docker.networks({names.FLEET: self._fleet})
            if not found:
                raise EngineError(f"the network of fleet {self._fleet} is gone; `shoal up` makes it again")
            self._network = found[0]["Id"]
        return self._network

    async def _write_down_ends(self, seen: Seen) -> Seen:
        """Why nodes' agents ended runs, in configs of their own: a write of the run's service would run it again."""
        if self._ended is None:
            wanted = {names.FLEET: self._fleet, names.ROLE: Role.ENDED.value}
            found = await self._docker.configs(wanted)
            reasons = {each["Spec"]["Labels"][names.RUN]: each["Spec"]["Data"] for each in found}
            self._ended = {run: base64.b64decode(data).decode() for run, data in reasons.items()}
        for run, reason in ended_runs(replace(seen, ended=self._ended)).items():
            labels = fleet_labels(self._fleet, Role.ENDED, run=run)
            with contextlib.suppress(EngineError):  # again with the next look
                await self._docker.create_config(self._name("shoal-ended", run), reason.encode(), labels)
                self._ended[run] = reason
        return replace(seen, ended=self._ended)

    async def _read_last_words(self, tasks: frozenset[str]) -> None:
        """Of each task that failed, once."""
        self._last_logs = {task: lines for task, lines in self._last_logs.items() if task in tasks}
        for task in tasks - self._last_logs.keys():
            lines: list[str] = []
            try:
                async with asyncio.timeout(_LAST_WORDS_S):
                    async for line in self._docker.task_logs(task, tail=LAST_LINES):
                        lines.append(line.text)
            except (EngineError, TimeoutError):
                continue  # its node does not answer: asked again with the next look
            self._last_logs[task] = tuple(map(self._mask, lines))
