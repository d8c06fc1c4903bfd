"""Gateway and broker on this machine: started, found again, told of changes, removed."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats
import pytest
from local_fleet import SLEEPER, eventually, processes_below

from shoal.engines.local.platform import LocalPlatform
from shoal.engines.local.service import Service
from shoal.errors import EngineError
from shoal.spec.engine_options import LocalOptions
from shoal.spec.model import Agent, Fleet


def platform(directory: Path, **arguments: Any) -> LocalPlatform:
    arguments.setdefault("gateway", SLEEPER)
    return LocalPlatform(directory, controller=f"unix:{directory}/controller.sock", **arguments)


def fleet(port: int = 0, **agents: Agent) -> Fleet:
    return Fleet(fleet="test", agents=agents, local=LocalOptions(port=port))


def pid_of(directory: Path, service: str) -> int:
    return int(json.loads((directory / "platform" / service / "process.json").read_bytes())["process"]["pid"])


CALLER = Agent(port=8000, calls=("b",))
WORKER = Agent(queue="q")


def can_connect(url: str | None) -> bool:
    """Whether the broker lets the user in that the URL names."""
    assert url is not None
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=10) as connection:
        login = {"user": parts.username, "pass": parts.password, "verbose": False, "pedantic": False}
        connection.sendall(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
        heard = b""
        while b"PONG" not in heard and b"-ERR" not in heard:
            heard += connection.recv(4096)
    return b"PONG" in heard


async def test_addresses_and_processes_outlive_the_controller(directory: Path) -> None:
    """The next platform object says the same and starts nothing."""
    shape = fleet(a=CALLER, b=WORKER)
    first = await platform(directory).ensure(shape)
    pids = [pid_of(directory, name) for name in ("gateway", "broker")]
    again = platform(directory)
    assert await again.ensure(fleet(c=CALLER, a=CALLER, b=WORKER)) != first
    second = await again.ensure(shape)
    assert replace(second, caller_ports=first.caller_ports) == first
    assert second.caller_ports["a"] == first.caller_ports["a"] and "c" in second.caller_ports  # c may not have ended
    assert [pid_of(directory, name) for name in ("gateway", "broker")] == pids
    assert set(first.caller_ports) == {"a"}
    assert first.call_url == {"a": f"http://127.0.0.1:{first.caller_ports['a']}"}
    assert set(first.broker_url) == {"b"}
    assert len({first.public_port, *first.caller_ports.values()}) == 2
    volume = directory / "volumes" / "shared" / "cache"
    volume.mkdir(parents=True)
    await again.remove(data=False)
    assert volume.exists()
    await again.remove(data=True)
    assert processes_below(directory) == []
    assert not (directory / "platform").exists() and not (directory / "volumes").exists()


async def test_a_start_that_nobody_noted_is_found(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that dies between the start and the note of it leaves no second gateway or broker to the next."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    home = directory / "platform" / "gateway"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shoal.engines.local.service.write_whole", killed)
        Service("gateway", home).start(SLEEPER, {"PATH": os.environ["PATH"]})
    found = Service("gateway", home)
    assert found.is_running(SLEEPER)
    await found.stop(1.0)
    assert processes_below(directory) == []


async def test_no_queue_no_broker(directory: Path) -> None:
    """Nothing is started that nobody needs."""
    parts = platform(directory)
    wiring = await parts.ensure(fleet(a=CALLER))
    assert (wiring.broker_url, wiring.broker_admin_url) == ({}, None)
    assert not (directory / "platform" / "broker" / "process.json").exists()
    await parts.remove(data=False)


async def test_nothing_to_do_is_quick(directory: Path) -> None:
    """Control asks once a second."""
    parts = platform(directory)
    shape = fleet(a=CALLER)
    wiring = await parts.ensure(shape)
    best_s = 1.0
    for _ in range(5):
        began = time.perf_counter()
        assert await parts.ensure(shape) is wiring
        best_s = min(best_s, time.perf_counter() - began)
    assert best_s < 0.01
    await parts.remove(data=True)


async def test_a_large_log_is_copied_beside_the_loop(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who asks for the platform waits for the disk."""
    parts = platform(directory)
    shape = fleet(a=CALLER)
    await parts.ensure(shape)
    log = directory / "platform" / "gateway" / "logs" / "stdout.log"
    log.write_bytes(b"x" * 11 * 2**20)
    threads: set[int] = set()
    look = Service.look_at_logs

    def noted(service: Service, now: float) -> None:
        threads.add(threading.get_ident())
        look(service, now)

    monkeypatch.setattr(Service, "look_at_logs", noted)

    async def rotated() -> bool:
        await parts.ensure(shape)
        return log.with_name("stdout.log.1").exists() and log.stat().st_size == 0

    await eventually("it was rotated", rotated)
    assert threading.get_ident() not in threads
    await parts.remove(data=True)


@pytest.mark.parametrize("kill", [os.killpg, os.kill])
async def test_what_died_is_started_again(directory: Path, kill: Callable[[int, int], None]) -> None:
    """With the addresses that agents were told, though the broker still has its port when its leader is dead."""
    deaths: list[str] = []
    parts = platform(directory, died=deaths.append)
    shape = fleet(a=CALLER, b=WORKER)
    before = await parts.ensure(shape)
    pids = [pid_of(directory, name) for name in ("gateway", "broker")]
    for pid in pids:
        kill(pid, signal.SIGKILL)

    async def other_processes() -> bool:
        await parts.ensure(shape)
        return not set(pids) & {pid_of(directory, name) for name in ("gateway", "broker")}

    await eventually("both were started", other_processes)
    assert sorted(death.split(" ended by itself")[0] for death in deaths) == ["the broker", "the gateway"]
    assert await parts.ensure(shape) == before
    assert can_connect(before.broker_url["b"])
    await parts.remove(data=True)


async def test_new_users_need_no_restart_of_the_broker(directory: Path) -> None:
    """A reload: the old agent's connection and process stay."""
    parts = platform(directory)
    before = await parts.ensure(fleet(b=WORKER))
    pid = pid_of(directory, "broker")
    after = await parts.ensure(fleet(b=WORKER, c=Agent(port=1, publishes=("q",))))
    assert pid_of(directory, "broker") == pid
    assert before.broker_url["b"] == after.broker_url["b"]
    assert can_connect(after.broker_url["c"])
    assert can_connect(after.broker_admin_url)
    assert not can_connect(after.broker_url["b"].replace("//b:", "//nobody:"))
    await parts.remove(data=True)


async def test_messages_survive_a_removal_without_data(directory: Path) -> None:
    """And the passwords and ports with them."""
    shape = fleet(b=WORKER)
    parts = platform(directory)
    before = await parts.ensure(shape)
    assert before.broker_admin_url is not None
    client = await nats.connect(before.broker_admin_url)
    stream = client.jetstream()
    await stream.add_stream(name="S", subjects=["s"])
    await stream.publish("s", b"kept")
    await client.close()
    await parts.remove(data=False)
    assert processes_below(directory) == []
    after = await parts.ensure(shape)
    assert after.broker_admin_url == before.broker_admin_url
    client = await nats.connect(before.broker_admin_url)
    assert (await client.jetstream().stream_info("S")).state.messages == 1
    await client.close()
    modes = {oct(path.stat().st_mode & 0o077) for path in (directory / "platform" / "broker").glob("*.json")}
    assert modes == {"0o0"}
    await parts.remove(data=True)


async def test_a_port_that_somebody_has_is_told(directory: Path) -> None:
    """The port, who has it, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EngineError) as caught:
            await platform(directory).ensure(fleet(port, a=CALLER))
        assert str(caught.value).startswith(f"local.port: {port} is used by ")
        assert f"(pid {os.getpid()})" in str(caught.value)
        assert "set local.port to another" in str(caught.value)


async def test_a_broker_that_does_not_start_says_why(directory: Path) -> None:
    """With what it wrote last."""
    broken = directory.parent / "nats-server"
    broken.write_text("#!/bin/sh\necho no disk >&2\nexit 4\n")
    broken.chmod(0o700)
    with pytest.raises(EngineError, match=r"the broker ended: exit code 4; it wrote last:\n  no disk"):
        await platform(directory, nats_server=str(broken)).ensure(fleet(b=WORKER))


async def test_the_real_gateway_and_its_envoy(directory: Path) -> None:
    """Envoy outlives a killed gateway, and is ended with it by `remove`."""
    parts = LocalPlatform(directory, controller=f"unix:{directory}/controller.sock")
    shape = fleet(a=CALLER)

    def envoys() -> set[int]:
        return {process.pid for process in processes_below(directory) if process.name() == "envoy"}

    await parts.ensure(shape)
    await eventually("Envoy runs", lambda: len(envoys()) == 1)
    before, pid = envoys(), pid_of(directory, "gateway")
    os.killpg(pid, signal.SIGKILL)

    async def started_again() -> bool:
        await parts.ensure(shape)
        return pid_of(directory, "gateway") != pid

    await eventually("the gateway was started again", started_again)
    assert envoys() == before
    await parts.remove(data=True)
    assert processes_below(directory) == []
