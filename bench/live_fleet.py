"""A fleet that a bench starts as people do, by `shoal up -d`, in a directory of its own, and always takes down.

Everything of it lies below one temporary directory, by which what is left of it would be found and killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from shoal.api.client import Client, socket_path
from shoal.api.views import AgentView, EventView

SHOAL = Path(sys.executable).with_name("shoal")
HERE = Path(__file__).parent
_UP_S, _DOWN_S = 120.0, 60.0
_SHOWN_CHARACTERS = 4000  # the end says what went wrong; the plan of a large fleet comes before it

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LiveFleet:
    """`directory` is the project's; the gateway listens at `port` on loopback."""

    name: str
    directory: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """That of every command about this fleet."""
        return {**os.environ, "SHOAL_HOME": str(self.directory / "home")}

    def shoal(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """Runs a command and gives its output. Raises CalledProcessError, TimeoutExpired."""
        ran = subprocess.run(
            [str(SHOAL), *arguments],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            start_new_session=True,  # Ctrl-C is ours to hear, and `down` must go on then
        )
        if ran.returncode:
            sys.stderr.write(ran.stderr[-_SHOWN_CHARACTERS:])
            raise subprocess.CalledProcessError(ran.returncode, ran.args, ran.stdout, ran.stderr)
        return ran.stdout

    def ask(self, question: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """One question to the controller, much cheaper than a command."""
        return asyncio.run(question(Client(socket_path(self.directory / "home" / self.name))))

    def agent(self, name: str) -> AgentView:
        """The agent as it is now."""
        status = self.ask(lambda client: client.status())
        return next(agent for agent in status.agents if agent.name == name)

    def events(self, since: float) -> list[EventView]:
        """What happened from an epoch second on."""

        async def read(client: Client) -> list[EventView]:
            return [event async for event in client.events(since)]

        return self.ask(read)

    def pin(self, agent: str, count: int | None) -> None:
        """Pins the agent's count; `None` gives it back to the autoscaler."""
        self.ask(lambda client: client.scale(agent, count))

    def wait_for(self, agent: str, holds: Callable[[AgentView], bool], within_s: float = 60.0) -> AgentView:
        """Until that holds of the agent. Raises TimeoutError."""
        deadline = time.monotonic() + within_s
        while not holds(view := self.agent(agent)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{agent} after {within_s:g}s: {view}")
            time.sleep(0.1)
        return view


@contextlib.contextmanager
def running(name: str, agents: Mapping[str, Any], **more: Any) -> Generator[LiveFleet]:
    """The fleet, settled. `agents` and `more` are what the file says."""
    with temporary_directory() as directory:
        fleet = LiveFleet(name, directory, free_port())
        spec = {"fleet": name, "local": {"port": fleet.port}, "agents": agents, **more}
        (directory / "shoal.yaml").write_text(json.dumps(spec, indent=2))  # JSON is YAML
        try:
            fleet.shoal("up", "-d", "-y", timeout_s=_UP_S)
            wait_listening(fleet.port)
            yield fleet
        finally:
            with contextlib.suppress(subprocess.SubprocessError):
                fleet.shoal("down", "-y", timeout_s=_DOWN_S)


@contextlib.contextmanager
def temporary_directory() -> Generator[Path]:
    """A directory with a short name, as sockets go into it; it and every process that names it are gone after."""
    directory = Path(tempfile.mkdtemp(prefix="shoal-bench-", dir="/tmp"))
    try:
        yield directory
    finally:
        _kill_what_names(str(directory))
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def process(argv: list[str], environment: Mapping[str, str] | None = None) -> Generator[subprocess.Popen[bytes]]:
    """A quiet process in a session of its own, ended after."""
    started = subprocess.Popen(
        argv,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def free_port() -> int:
    """A port on loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_listening(port: int, within_s: float = 20.0) -> None:
    """Until something listens there. Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port} after {within_s:g}s")


def _kill_what_names(directory: str) -> None:
    for found in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            named = any(directory in word for word in found.cmdline())
            if found.pid != os.getpid() and (named or directory in found.environ().get("SHOAL_HOME", "")):
                found.kill()
