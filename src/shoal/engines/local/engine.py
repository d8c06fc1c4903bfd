"""The local engine: replicas as supervised process groups that outlive their controller.

One engine at a time has a state directory. Leaving the context ends the watching and nothing else; the next engine on
the same directory finds everything again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from shoal.core.action import Action, ActionFailure
from shoal.core.observed import Observed
from shoal.core.signals import Usage
from shoal.core.template import SecretUse
from shoal.engines.dispatch import carry_out
from shoal.engines.local.agent import LocalAgent, Story
from shoal.engines.local.capabilities import CAPABILITIES
from shoal.engines.local.command import run_command
from shoal.engines.local.gpus import Gpus, visible_devices
from shoal.engines.local.guard import keep_limits
from shoal.engines.local.in_memory import find_memory, sweep_memory
from shoal.engines.local.layout import Layout, directories, make_private
from shoal.engines.local.life import Life
from shoal.engines.local.log_reading import Follower, read_logs
from shoal.engines.local.logs import STREAMS
from shoal.engines.local.machine import Machine, Timing
from shoal.engines.local.ports import Ports
from shoal.engines.local.render import render_base
from shoal.engines.local.state import check_version
from shoal.engines.local.usage import UsageMeter
from shoal.engines.nvml import with_gpus
from shoal.engines.protocol import Capabilities, Command, LogLine, not_running
from shoal.engines.view import View
from shoal.errors import EngineError, EngineUnavailable
from shoal.spec.engine_options import LocalOptions

_LOGGER = logging.getLogger("shoal.engines.local")
_AGAIN_S = 1.0


def refuse_secrets(use: SecretUse) -> bytes:
    """The default source of secrets: there is none."""
    raise EngineError(f"the secret {use.name} can't be read: this engine was given no source of secrets")


class LocalEngine:
    """Implements `Engine` and `Inspector`; an async context manager.

    `directory` holds the fleet's state; `project_directory` is what `working_dir` is relative to; `secrets` gives a
    secret's content as a template names it (it may raise ShoalError), `mask` takes secrets out of what replicas write;
    `environment` is what the base of every replica's environment is taken from. Entering raises EngineUnavailable while
    another engine has the directory.
    """

    def __init__(
        self,
        directory: Path,
        fleet: str,
        options: LocalOptions,
        *,
        project_directory: Path | None = None,
        secrets: Callable[[SecretUse], bytes] = refuse_secrets,
        mask: Callable[[str], str] = str,
        environment: Mapping[str, str] | None = None,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.capabilities: Capabilities = CAPABILITIES
        self._agents: dict[str, LocalAgent] = {}
        self._surrounding = os.environ if environment is None else environment
        layout = Layout(directory.absolute())
        self._machine = Machine(
            fleet=fleet,
            layout=layout,
            project_directory=Path(),
            base={},
            labels={},
            secrets=secrets,
            mask=mask,
            memory=find_memory(layout, self._surrounding),
            ports=Ports(),
            gpus=Gpus(()),
            timing=timing or Timing(),
            clock=clock,
        )
        self.configure(options, project_directory or Path())
        self._view = View()
        self._usage = UsageMeter()
        self._log_readers = 0  # while somebody reads in a thread, nothing is rotated
        self._rotating = asyncio.Lock()  # and while something is rotated in a thread, nobody reads
        self._lock: int | None = None
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        layout = self._machine.layout
        make_private(layout.agents)
        layout.root.chmod(0o700)  # it may have been there before
        self._lock = _lock(layout.lock)
        try:
            check_version(layout.version)
            sweep_memory(layout, self._machine.memory)
            self._group = await asyncio.TaskGroup().__aenter__()
            for path in directories(layout.agents):
                self._agent(path.name).adopt()
            self._begin(self._keep_house)
            self._begin(lambda: keep_limits(self._machine, self._lives))
            self._begin(self._watch_lively_logs)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            if self._group is not None:
                # The body's error is not the tasks': they are cancelled already, and theirs would hide it.
                await self._group.__aexit__(None, None, None)
        finally:
            for agent in self._agents.values():
                agent.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def configure(self, options: LocalOptions, project_directory: Path) -> None:
        """Takes what may change with the fleet, for what starts from now on; replicas that wait for it look again."""
        project = project_directory.absolute()
        venv = project / ".venv"
        self._machine.project_directory = project
        self._machine.base = render_base(self._surrounding, venv if (venv / "bin").is_dir() else None)
        self._machine.labels = options.labels
        self._machine.gpus.devices = visible_devices(options.gpus, self._surrounding.get("CUDA_VISIBLE_DEVICES"))
        self._wake_waiting()

    async def observe(self) -> Observed:
        """Every agent; the same object again for one of which nothing changed."""
        return Observed(self._machine.clock(), self._view.of(self._agents))

    def changes(self) -> AsyncIterator[None]:
        """Yields after whatever happened since the call: an exit, a flip of readiness, a start, an action."""
        return self._view.changes()

    async def act(self, actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
        """Carries the actions out in order. Starting and stopping go on after it has returned."""
        failures: list[ActionFailure] = []
        for action in actions:
            try:
                carry_out(action, self._agents, self._agent)
            except (EngineError, OSError) as error:
                failures.append(ActionFailure(action, str(error)))
            await asyncio.sleep(0)  # many starts in one call leave probes and signals their turn
        return tuple(failures)

    async def logs(
        self, *agents: str, follow: bool = False, since: float | None = None, tail: int | None = None
    ) -> AsyncGenerator[LogLine]:
        """What the agents' replicas and runs wrote, those included that are gone. Times: see `local.logs`."""
        followers: dict[Path, Follower] = {}
        self._log_readers += 1
        try:
            async with self._rotating:
                pass  # what has begun comes to its end; with a reader here nothing else begins
            for agent in agents:
                if agent in self._agents:
                    await self._agents[agent].look_at_logs(self._machine.clock(), rotate=False)
            if follow:
                self._find_followers(agents, followers, from_end=True)
            ends = {path: follower.offset for path, follower in followers.items()} if follow else None
            paths = {agent: list(directories(self._machine.layout.logs(agent))) for agent in agents}
            lines = await asyncio.to_thread(lambda: list(read_logs(paths, since, tail, ends)))
        finally:
            self._log_readers -= 1
        for line in lines:
            yield self._masked(line)
        while follow:
            for follower in list(followers.values()):
                async with self._rotating:
                    fresh = list(follower.read(self._machine.clock()))
                for line in fresh:
                    yield self._masked(line)
            await asyncio.sleep(self._machine.timing.follow_s)
            self._find_followers(agents, followers, from_end=False)

    def secret_digests(self) -> set[str]:
        """Of the contents that a start of a revision which is known here may ask for."""
        return {digest for agent in self._agents.values() for digest in agent.secret_digests}

    async def usage(self) -> Mapping[str, Usage]:
        """Use by replica (and run) id; CPU since the call before."""
        wanted = {life.id: (life.directory, life.session) for life in self._lives() if life.session is not None}
        look = await self._machine.census.look()
        sessions = {identity: session for identity, (_, session) in wanted.items()}
        now, at_s = self._machine.clock(), self._machine.now.at_s
        usage = self._usage.measure(look.families(wanted), sessions, now, at_s)
        devices = {life.id: life.gpus for life in self._lives() if life.gpus}
        return await with_gpus(usage, devices)

    @contextlib.asynccontextmanager
    async def exec(self, replica: str, argv: Sequence[str], *, tty: bool) -> AsyncGenerator[Command]:
        """As a process of the replica's: it counts for its limits, and ends with it."""
        session = next((life.session for life in self._lives() if life.id == replica), None)
        if session is None:
            raise not_running(replica)
        async with run_command(session, argv, tty=tty) as command:
            yield command

    def _lives(self) -> Iterator[Life]:
        for agent in self._agents.values():
            yield from agent.lives

    def _agent(self, name: str) -> LocalAgent:
        if name not in self._agents or self._agents[name].gone:
            self._agents[name] = LocalAgent(
                self._machine, name, self._begin, lambda: self._view.touch(name), self._wake_waiting
            )
        return self._agents[name]

    def _masked(self, line: LogLine) -> LogLine:
        return LogLine(line.replica, line.agent, self._machine.mask(line.text), line.stream, line.at)

    def _begin(self, story: Story) -> None:
        if self._group is None:
            raise EngineUnavailable("the local engine is not open; use it by `async with`")
        task = self._group.create_task(_lasting(story))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _wake_waiting(self) -> None:
        for agent in self._agents.values():
            agent.wake()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(self._machine.timing.housekeeping_s)
            for agent in list(self._agents.values()):
                agent.catch_up()
                async with self._rotating:
                    await agent.look_at_logs(self._machine.clock(), rotate=self._log_readers == 0)

    async def _watch_lively_logs(self) -> None:
        while True:
            await asyncio.sleep(self._machine.timing.lively_s)
            async with self._rotating:
                for agent in self._agents.values():
                    for life in agent.lives:
                        life.logs.look_if_lively(self._machine.clock())

    def _find_followers(self, agents: Sequence[str], followers: dict[Path, Follower], *, from_end: bool) -> None:
        for agent in agents:
            for directory in directories(self._machine.layout.logs(agent)):
                for stream in STREAMS:
                    path = directory / f"{stream}.log"
                    if path not in followers:
                        followers[path] = Follower(agent, directory, stream, from_end=from_end)


async def _lasting(story: Story) -> None:
    """A story that breaks off is taken up again: one replica's trouble (no descriptor left, a disk that can't be read)
    must not be the end of what keeps all the others."""
    while True:
        try:
            await story()
        except Exception:
            _LOGGER.exception("an unexpected error; goes on in %g s", _AGAIN_S)
            await asyncio.sleep(_AGAIN_S)
        else:
            return


def _lock(path: Path) -> int:
    """Takes the directory for this engine; the kernel gives it back when the process ends, however it ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = ""
        with contextlib.suppress(OSError):
            holder = os.read(handle, 32).decode(errors="replace").strip()
        os.close(handle)
        raise EngineUnavailable(
            f"{path.parent}: another controller has this fleet (pid {holder or 'unknown'}); stop it, or ask it"
        ) from error
    with contextlib.suppress(OSError):  # on a full disk the next one is told less, no more
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
    return handle
