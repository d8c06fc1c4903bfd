"""Conformance cases on this machine: the local engine, with the controller as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from shoal.api.client import Client, socket_path
from shoal.api.views import ReplicaView
from shoal.control.secret_contents import SecretContents
from shoal.control.sqlite_store import open_store
from shoal.control.store import SecretRecord
from shoal.engines.local.capabilities import CAPABILITIES
from shoal.spec.model import Fleet
from tests.conformance.bed import AGENTS, DEADLINE_S, FleetBed, end_of


class LocalBed(FleetBed):
    """See `FleetBed`."""

    engine = "local"
    capabilities = CAPABILITIES
    most_files = 65_536

    def __init__(self, home: Path, http: aiohttp.ClientSession, fleet: str = "conformance") -> None:
        super().__init__(home, http, fleet)
        self.directory = home / fleet  # as the command line has it, for SHOAL_HOME=home
        self._api = Client(socket_path(self.directory))
        self._controller: asyncio.subprocess.Process | None = None

    @classmethod
    def find(cls) -> None:
        return  # it is this machine

    @property
    def api(self) -> Client:
        return self._api

    def http_agent(self, **more: Any) -> dict[str, Any]:
        agent = {
            "command": [sys.executable, str(AGENTS / "http_agent.py")],
            "port": 8000,
            "health": {"path": "/healthz"},
        }
        return {**agent, **more, "environment": {"SHOAL_LOCAL": "1", **more.get("environment", {})}}

    def program(self, name: str, **more: Any) -> dict[str, Any]:
        return {"command": [sys.executable, str(AGENTS / name)], **more}

    async def store(self, spec: dict[str, Any], secrets: Mapping[str, bytes] | None = None) -> None:
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
        await self.api.apply()

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

    async def start_another_controller(self) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._controller_command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        exit_code, said = await end_of(process)
        assert exit_code == 1
        return said

    async def controller(self) -> str:
        return f"process {(await self.api.status()).controller_pid}"

    async def kill_replica(self, replica: ReplicaView, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    async def down(self) -> str:
        said = await super().down()
        assert self._controller is not None
        async with asyncio.timeout(DEADLINE_S):
            await self._controller.wait()
        self._controller = None
        return said

    async def left_behind(self) -> list[str]:
        found: list[str] = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), *process.environ().values()]
                if process.status() != psutil.STATUS_ZOMBIE and any(str(self.directory) in word for word in words):
                    found.append(f"{process.pid} {' '.join(process.cmdline())}")
            except (psutil.Error, OSError):
                continue
        return found

    async def controller_log(self) -> str:
        log = self.directory / "controller.log"
        return log.read_text()[-3000:] if log.exists() else ""

    def no_controller_comes(self) -> bool:
        return self._controller is not None and self._controller.returncode is not None

    async def close(self) -> None:
        if self._controller is None:
            return
        try:
            if self._controller.returncode is not None:
                await self.start_controller()
            async with asyncio.timeout(DEADLINE_S):
                await self.api.down(volumes=True)
                await self._controller.wait()
        finally:
            if self._controller.returncode is None:
                os.killpg(self._controller.pid, signal.SIGKILL)
                await self._controller.wait()
        assert await self.left_behind() == []

    @property
    def _controller_command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "shoal.api", "--directory", str(self.directory), "--fleet", self.fleet)
