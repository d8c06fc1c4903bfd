"""What the tests of the local engine share: small agents, waiting for a condition, and ending every process."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from shoal.core.action import Action, EnsureRevision, Scale
from shoal.core.observed import AgentObserved, Phase, Replica
from shoal.core.template import Template
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.machine import Timing
from shoal.spec.engine_options import LocalOptions
from shoal.spec.model import Health, Kind, Placement, Resources

PYTHON = (sys.executable, "-I", "-S", "-u", "-c")
DEADLINE_S = 20.0
QUICK = Timing(settled_s=0.05, backoff_s=0.05, backoff_max_s=0.4, wrong_port_s=0.3, housekeeping_s=0.05)

SERVER = """
import os, signal, socket, sys
def end(*_):
    print("bye", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("hello from", os.environ["SHOAL_REPLICA"], flush=True)
while True:
    c, _ = s.accept()
    request = c.recv(4096)
    if request:
        status = open("status").read() if os.path.exists("status") else "200 OK"
        c.sendall(b"HTTP/1.1 " + status.encode() + b"\\r\\nContent-Length: 0\\r\\n\\r\\n")
    c.close()
"""
SLEEPER = ("/bin/sleep", "600")


def template(command: tuple[str, ...] | None = None, **changes: Any) -> Template:
    """A worker that sleeps, unless told otherwise; with a port and no command, a small HTTP server."""
    port = changes.get("port")
    if command is None:
        command = (*PYTHON, SERVER, "$PORT") if port else SLEEPER
    fields: dict[str, Any] = {
        "agent": "a", "kind": Kind.SERVICE if port else Kind.WORKER, "image": None, "command": command,
        "working_dir": None, "environment": {}, "port": None, "protocol": "http",
        "health": Health(interval=0.1, timeout=5, retries=2), "resources": Resources(), "placement": Placement(),
        "stateful": False, "volumes": (), "secrets": (), "calls": (), "queue": None, "publishes": (),
        "stop_grace_period_s": 10.0,
    }  # fmt: skip
    return Template(**(fields | changes))


def wanted(template: Template, count: int, revision: str = "r1", **environment: str) -> list[Action]:
    """The actions that bring one revision to a count."""
    return [
        EnsureRevision(template.agent, revision, template, environment),
        Scale(template.agent, revision, count),
    ]


async def until(engine: Any, what: str, condition: Callable[[AgentObserved], bool], agent: str = "a") -> AgentObserved:
    """Waits, by the engine's own changes, until the agent is as wanted."""
    changes = engine.changes()
    seen = AgentObserved(agent)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                seen = (await engine.observe()).agents.get(agent, AgentObserved(agent))
                if condition(seen):
                    return seen
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(anext(changes), 1.0)
                    continue
                changes = engine.changes()
    except TimeoutError:
        raise AssertionError(f"waited in vain until {what}; last seen: {seen}") from None
    finally:
        await changes.aclose()


def all_ready(count: int) -> Callable[[AgentObserved], bool]:
    return lambda view: len(view.replicas) == count and all(replica.ready for replica in view.replicas)


async def ready(engine: Any, count: int, agent: str = "a") -> tuple[Replica, ...]:
    view = await until(engine, f"{count} replicas are ready", all_ready(count), agent)
    return view.replicas


async def in_phase(engine: Any, phase: Phase, agent: str = "a") -> Replica:
    def first(view: AgentObserved) -> bool:
        return any(replica.phase is phase for replica in view.replicas)

    view = await until(engine, f"a replica is {phase}", first, agent)
    return next(replica for replica in view.replicas if replica.phase is phase)


async def eventually(what: str, condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """For what no engine tells: looked at until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        holds = condition()
        if (await holds) if isinstance(holds, Awaitable) else holds:
            return
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        await asyncio.sleep(0.01)


def local_engine(directory: Path, **arguments: Any) -> LocalEngine:
    """An engine on the directory, patient as tests are."""
    options = arguments.pop("options", LocalOptions(gpus=0))
    arguments.setdefault("timing", QUICK)
    arguments.setdefault("project_directory", directory.parent)
    return LocalEngine(directory, "test", options, **arguments)


def processes_below(directory: Path) -> list[psutil.Process]:
    """Every process whose command line or environment names the directory."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                words = [*process.cmdline(), *process.environ().values()]
                if any(str(directory) in word for word in words):
                    found.append(process)
    return found


@contextlib.contextmanager
def nothing_left_running(directory: Path) -> Iterator[None]:
    """Ends, however the test ended, every session that a leader with this state directory heads."""
    try:
        yield
    finally:
        for process in processes_below(directory):
            with contextlib.suppress(psutil.Error, OSError):
                session = os.getsid(process.pid)
                if session == os.getsid(0):
                    process.kill()
                    continue
                for pid in psutil.pids():
                    with contextlib.suppress(OSError):
                        if os.getsid(pid) == session:
                            os.kill(pid, signal.SIGKILL)


async def collect(lines: AsyncIterator[Any]) -> list[Any]:
    return [line async for line in lines]
