"""Where the conformance cases run: one engine with a fleet on it, asked only through what a user has."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from shoal.api.client import Client, socket_path
from shoal.api.views import AgentView, ReplicaView, StatusView
from shoal.control.secret_contents import SecretContents
from shoal.control.sqlite_store import open_store
from shoal.control.store import SecretRecord
from shoal.engines.local.capabilities import CAPABILITIES
from shoal.errors import ControllerUnavailable
from shoal.spec.model import Fleet

AGENTS = Path(__file__).parent / "agents"
DEADLINE_S = 60.0  # generous: a shared machine may be busy; no case waits for it when all is well


class LocalBed:
    """The local engine, with the controller as a process of its own."""

    engine = "local"
    capabilities = CAPABILITIES
    most_files = 65_536  # that a process may open

    def __init__(self, home: Path, http: aiohttp.ClientSession, fleet: str = "conformance") -> None:
        self.home, self.fleet, self.http = home, fleet, http
        self.directory = home / fleet  # as the command line has it, for SHOAL_HOME=home
        self.api = Client(socket_path(self.directory))
        self._controller: asyncio.subprocess.Process | None = None

    def http_agent(self, **more: Any) -> dict[str, Any]:
        """A service that runs `http_agent.py`."""
        agent = {
            "command": [sys.executable, str(AGENTS / "http_agent.py")],
            "port": 8000,
            "health": {"path": "/healthz"},
        }
        return {**agent, **more, "environment": {"SHOAL_LOCAL": "1", **more.get("environment", {})}}

    def program(self, name: str, **more: Any) -> dict[str, Any]:
        """An agent that runs a program of `agents/`."""
        return {"command": [sys.executable, str(AGENTS / name)], **more}

    async def store(self, spec: dict[str, Any], secrets: Mapping[str, bytes] | None = None) -> None:
        """Stores the fleet, and its secrets by name, as `shoal up` does, and has the controller look at it."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        fleet = Fleet.model_validate({"fleet": self.fleet, "local": {"port": 0}, **spec})
        contents = SecretContents(self.directory)
        records = {
            name: SecretRecord(contents.put(value), time.time(), "the test") for name, value in (secrets or {}).items()
        }
        async with open_store(self.directory / "state.db") as store:
            stored = await store.read_fleet()
            await store.write_fleet(
                fleet,
                directory=str(AGENTS),
                by="the test",
                at=time.time(),
                expected_generation=stored.generation if stored else 0,
                secrets=records if secrets is not None else None,
            )
        if self._controller is None or self._controller.returncode is not None:
            await self.start_controller()
        await self._call("POST", "/v1/apply", {})

    async def up(self, spec: dict[str, Any], secrets: Mapping[str, bytes] | None = None) -> StatusView:
        """Stores the fleet and waits until it is carried out."""
        await self.store(spec, secrets)
        return await self.until(lambda status: status.settled, "the fleet to settle")

    async def start_controller(self) -> None:
        log = (self.directory / "controller.log").open("ab")
        with log:
            self._controller = await asyncio.create_subprocess_exec(
                *self._controller_command, stdout=log, stderr=log, start_new_session=True
            )
        await self.until(lambda _: True, "the controller to answer")

    async def kill_controller(self) -> None:
        assert self._controller is not None
        self._controller.send_signal(signal.SIGKILL)
        await self._controller.wait()

    async def start_another_controller(self) -> tuple[int, str]:
        """A second one on the same fleet: its exit code, and what it said."""
        process = await asyncio.create_subprocess_exec(
            *self._controller_command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        return await _end_of(process)

    async def shoal(self, *arguments: str, given: bytes = b"") -> tuple[int, str]:
        """The command line, with this on its standard input: its exit code, and what it said."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shoal.cli", *arguments, "--fleet", self.fleet,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "SHOAL_HOME": str(self.home)},
        )  # fmt: skip
        return await _end_of(process, given)

    async def down(self) -> str:
        """`shoal down`, whether there is a controller or not: what it said."""
        exit_code, said = await self.shoal("down")
        assert exit_code == 0, said
        assert self._controller is not None
        async with asyncio.timeout(DEADLINE_S):
            await self._controller.wait()
        self._controller = None
        return said

    def left_behind(self) -> list[str]:
        """The processes of the fleet that still run, whatever they are."""
        found: list[str] = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), *process.environ().values()]
                if process.status() != psutil.STATUS_ZOMBIE and any(str(self.directory) in word for word in words):
                    found.append(f"{process.pid} {' '.join(process.cmdline())}")
            except (psutil.Error, OSError):
                continue
        return found

    async def until(self, holds: Callable[[StatusView], bool], what: str) -> StatusView:
        """Waits for a condition of the status; a time-out shows the last one."""
        status: StatusView | None = None
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            try:
                status = await self.api.status()
            except ControllerUnavailable:
                if self._controller is not None and self._controller.returncode is not None:
                    break
            else:
                if holds(status):
                    return status
            await asyncio.sleep(0.02)
        log = (self.directory / "controller.log").read_text()[-3000:]
        raise AssertionError(f"waited for {what}, but: {status}\ncontroller: {log}")

    async def until_agent(self, name: str, holds: Callable[[AgentView], bool], what: str) -> AgentView:
        """Waits for a condition of one agent."""

        def found(status: StatusView) -> bool:
            return any(agent.name == name and holds(agent) for agent in status.agents)

        status = await self.until(found, what)
        return next(agent for agent in status.agents if agent.name == name)

    async def replicas(self, name: str) -> dict[str, ReplicaView]:
        """The replicas of one agent by their ids."""
        (agent,) = (agent for agent in (await self.api.status()).agents if agent.name == name)
        return {replica.id: replica for replica in agent.replicas}

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        """A request through the public gateway: status, and the JSON (or text) of the answer."""
        status = await self.api.status()
        async with self.http.request(options.pop("method", "GET"), f"{status.gateway_url}{path}", **options) as answer:
            text = await answer.text()
        try:
            return answer.status, json.loads(text)
        except json.JSONDecodeError:
            return answer.status, text

    async def url(self) -> str:
        """Where the gateway is."""
        url = (await self.api.status()).gateway_url
        assert url is not None
        return url

    async def close(self) -> None:
        """Takes the fleet down, and kills what is left of the controller; nothing else may be left."""
        if self._controller is None:
            return
        try:
            if self._controller.returncode is not None:
                await self.start_controller()
            async with asyncio.timeout(DEADLINE_S):
                await self._call("POST", "/v1/down", {"volumes": True})
                await self._controller.wait()
        finally:
            if self._controller.returncode is None:
                os.killpg(self._controller.pid, signal.SIGKILL)
                await self._controller.wait()
        assert self.left_behind() == []

    @property
    def _controller_command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "shoal.api", "--directory", str(self.directory), "--fleet", self.fleet)

    async def _call(self, method: str, path: str, body: dict[str, Any]) -> None:
        connector = aiohttp.UnixConnector(str(socket_path(self.directory)))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://shoal{path}", json=body) as answer,
        ):
            assert answer.status == 200, await answer.text()


async def _end_of(process: asyncio.subprocess.Process, given: bytes = b"") -> tuple[int, str]:
    try:
        async with asyncio.timeout(DEADLINE_S):
            said, _ = await process.communicate(given or None)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, said.decode()


BEDS = {bed.engine: bed for bed in (LocalBed,)}
