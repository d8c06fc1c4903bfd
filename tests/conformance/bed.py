"""Where the conformance cases run: one engine with a fleet on it, asked only through what a user has."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp

from shoal.api.client import Client
from shoal.api.views import AgentView, ReplicaView, StatusView
from shoal.engines.protocol import Capabilities
from shoal.errors import ControllerUnavailable

AGENTS = Path(__file__).parent / "agents"
DEADLINE_S = 60.0  # generous: a shared machine may be busy; no case waits for it when all is well


class FleetBed(ABC):
    """One fleet on one engine, with a controller that can be killed."""

    engine: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    most_files: ClassVar[int]  # that a process may open
    sink_host: str = "127.0.0.1"  # where agents reach who listens beside the tests

    def __init__(self, home: Path, http: aiohttp.ClientSession, fleet: str = "conformance") -> None:
        self.home, self.fleet, self.http = home, fleet, http
        self.environ = {**os.environ, "SHOAL_HOME": str(home)}

    @classmethod
    @asynccontextmanager
    async def opened(cls, within_s: float = 60.0) -> AsyncGenerator[Self]:
        """One with a folder of its own, which leaves nothing; a request through it may take so long. Skips, and says
        what was missing, where there is no such engine."""
        cls.find()
        # Not pytest's own folder: its long name would leave no room for the names of sockets.
        with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=within_s)) as http:
                made = cls(Path(folder), http)
                try:
                    yield made
                finally:
                    await made.close()

    @classmethod
    @abstractmethod
    def find(cls) -> None:
        """Skips, and says what was missing, where there is no such engine."""

    @property
    @abstractmethod
    def api(self) -> Client:
        """The controller's, once there is a fleet."""

    @abstractmethod
    def http_agent(self, **more: Any) -> dict[str, Any]:
        """A service that runs `http_agent.py`."""

    @abstractmethod
    def program(self, name: str, **more: Any) -> dict[str, Any]:
        """An agent that runs a program of `agents/`."""

    @abstractmethod
    async def store(self, spec: dict[str, Any], secrets: Mapping[str, bytes] | None = None) -> None:
        """Stores the fleet, and its secrets by name, as `shoal up` does, and has the controller look at it."""

    @abstractmethod
    async def start_controller(self) -> None:
        """The next one, after one was killed; it answers."""

    @abstractmethod
    async def kill_controller(self) -> None:
        """SIGKILL, and nobody starts another."""

    @abstractmethod
    async def start_another_controller(self) -> str:
        """A second one on the same fleet, which ends or waits: what it said."""

    @abstractmethod
    async def controller(self) -> str:
        """What others call the one that acts."""

    @abstractmethod
    async def kill_replica(self, replica: ReplicaView, pid: int) -> None:
        """SIGKILL for its program, which says itself what its `pid` is."""

    @abstractmethod
    async def left_behind(self) -> list[str]:
        """What of the fleet still runs, whatever it is."""

    @abstractmethod
    async def close(self) -> None:
        """Takes the fleet down with all that it has; nothing may be left."""

    @abstractmethod
    async def controller_log(self) -> str:
        """The last words of the controllers there were."""

    def no_controller_comes(self) -> bool:
        """Whether the last one has ended, and nobody starts another."""
        return False

    async def up(self, spec: dict[str, Any], secrets: Mapping[str, bytes] | None = None) -> StatusView:
        """Stores the fleet and waits until it is carried out."""
        await self.store(spec, secrets)
        return await self.until(lambda status: status.settled, "the fleet to settle")

    async def shoal(self, *arguments: str, given: bytes = b"") -> tuple[int, str]:
        """The command line, with this on its standard input: its exit code, and what it said."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shoal.cli", "--fleet", self.fleet, *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=self.environ,
        )  # fmt: skip
        return await end_of(process, given)

    async def down(self) -> str:
        """`shoal down`, whether there is a controller or not: what it said."""
        exit_code, said = await self.shoal("down")
        assert exit_code == 0, said
        return said

    async def until(self, holds: Callable[[StatusView], bool], what: str, within_s: float = DEADLINE_S) -> StatusView:
        """Waits for a condition of the status; a time-out shows the last one."""
        status: StatusView | None = None
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            try:
                status = await self.api.status()
            except ControllerUnavailable:
                if self.no_controller_comes():
                    break
            else:
                if holds(status):
                    return status
            await asyncio.sleep(0.02)
        raise AssertionError(f"waited for {what}, but: {status}\ncontroller: {await self.controller_log()}")

    async def until_agent(
        self, name: str, holds: Callable[[AgentView], bool], what: str, within_s: float = DEADLINE_S
    ) -> AgentView:
        """Waits for a condition of one agent."""

        def found(status: StatusView) -> bool:
            return any(agent.name == name and holds(agent) for agent in status.agents)

        status = await self.until(found, what, within_s)
        return next(agent for agent in status.agents if agent.name == name)

    async def replicas(self, name: str) -> dict[str, ReplicaView]:
        """The replicas of one agent by their ids."""
        (agent,) = (agent for agent in (await self.api.status()).agents if agent.name == name)
        return {replica.id: replica for replica in agent.replicas}

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        """A request through the public gateway: status, and the JSON (or text) of the answer."""
        url = options.pop("base", None) or await self.url()
        async with self.http.request(options.pop("method", "GET"), f"{url}{path}", **options) as answer:
            text = await answer.text()
        try:
            return answer.status, json.loads(text)
        except json.JSONDecodeError:
            return answer.status, text

    async def url(self) -> str:
        """Where the gateways are reached."""
        url = (await self.api.status()).gateway_url
        assert url is not None
        return url

    async def every_gateway(self) -> list[str]:
        """The URLs that together lead to every gateway, once they do: of several, `up` waits for one alone."""
        return [await self.url()]


async def end_of(process: asyncio.subprocess.Process, given: bytes = b"") -> tuple[int, str]:
    """How a process ends, and what it said."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            said, _ = await process.communicate(given or None)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, said.decode()
