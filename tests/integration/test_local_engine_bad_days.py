"""A full disk, files that can't be read, rights that are missing: each is said in words, and nothing is lost."""

import errno
import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_fleet import (
    PYTHON,
    SLEEPER,
    all_ready,
    collect,
    eventually,
    in_phase,
    local_engine,
    nothing_left_running,
    ready,
    template,
    until,
    wanted,
)

from shoal.core.action import RunJob, Scale
from shoal.core.observed import Phase
from shoal.engines.local.addresses import Addresses
from shoal.engines.local.census import Census, Look
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.launch import _working_directory
from shoal.engines.local.platform import LocalPlatform
from shoal.engines.local.process import session_members
from shoal.errors import EngineError
from shoal.spec.engine_options import LocalOptions
from shoal.spec.model import Agent, Fleet, Health

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "shoal-test", str(disk)], check=False)
    if done.returncode != 0:
        pytest.skip("may not mount")
    try:
        with nothing_left_running(tmp_path):
            yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Leaves no byte free."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return path


def lives(directory: Path, replica: str) -> Path:
    return directory / "agents" / "a" / "lives" / replica


def corrupt(path: Path) -> None:
    path.write_bytes(b'{"id": "a-1", "agen')


def kept_aside(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.corrupt-*"))


@NEEDS_ROOT
async def test_a_full_disk_is_said_and_got_over(small_disk: Path) -> None:
    """What runs runs on, though its log takes nothing more; its exit code is known; what could not be started says why
    and is started when there is room."""
    writes = "echo begun; while [ ! -e go ]; do echo more 2>/dev/null; sleep 0.01; done; exit 7"
    async with local_engine(small_disk / "state") as engine:
        await engine.act(wanted(template(("/bin/sh", "-c", writes)), 1))
        await ready(engine, 1)
        filler = fill(small_disk)
        await engine.act([Scale("a", "r1", 1), *wanted(template(agent="b"), 1)])
        assert (await ready(engine, 1))[0].restarts == 0
        (small_disk / "go").mkdir()  # which takes no room
        failed = await in_phase(engine, Phase.BACKOFF)
        assert (failed.exit_code, failed.restarts >= 1) == (7, True)
        view = await until(engine, "it says why", lambda view: any("no space left" in r.reason for r in view.replicas))
        assert "free some; it is tried again" in view.replicas[0].reason
        (small_disk / "go").rmdir()
        filler.unlink()
        await until(engine, "it runs again", all_ready(1))
        await until(engine, "the other one does", all_ready(1), "b")


async def test_an_agents_file_that_cannot_be_read_costs_no_restart(directory: Path) -> None:
    """It is kept aside; what runs goes on, and is whole again once somebody says what it is."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(port=8000), 2))
        before = await ready(engine, 2)
    manifest = directory / "agents" / "a" / "agent.json"
    corrupt(manifest)
    async with local_engine(directory) as engine:
        assert (await engine.observe()).agents["a"].counts == {"r1": 2}
        await engine.act(wanted(template(port=8000), 3))
        after = await ready(engine, 3)
        assert after[:2] == before
        assert after[2].id == "a-3"
    assert [path.read_bytes()[:3] for path in kept_aside(manifest)] == [b'{"i']
    assert '"r1"' in manifest.read_text()


async def test_a_life_whose_file_cannot_be_read_is_known_by_what_runs(directory: Path) -> None:
    """Its process says which replica it is, of which revision, on which port; a run goes on and is not repeated."""
    command = ("/bin/sh", "-c", "echo x >>count; while [ ! -e go ]; do sleep 0.01; done")
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(port=8000, stateful=True), 2))
        await engine.act([*wanted(template(command, agent="b"), 0), RunJob("b", "r1", "b-now")])
        before = await ready(engine, 2)
        await until(engine, "it runs", lambda view: view.runs[0].phase is Phase.RUNNING, "b")
    for replica in before:
        corrupt(lives(directory, replica.id) / "state.json")
    corrupt(directory / "agents" / "b" / "lives" / "b-now" / "state.json")
    async with local_engine(directory) as engine:
        after = await ready(engine, 2)
        assert [(r.id, r.port, r.ordinal, r.revision, r.restarts) for r in after] == [
            (r.id, r.port, r.ordinal, r.revision, 0) for r in before
        ]
        (directory.parent / "go").touch()
        await until(engine, "it has succeeded", lambda view: view.runs[0].phase is Phase.SUCCEEDED, "b")
        assert (directory.parent / "count").read_text() == "x\n"
        assert all(kept_aside(lives(directory, r.id) / "state.json") != [] for r in before)
        await engine.act([Scale("a", "r1", 0)])
        await until(engine, "they are gone", lambda view: not view.replicas)


async def test_a_life_of_which_nothing_is_left_is_made_anew(directory: Path) -> None:
    """Under an id that nobody had."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(), 1))
        await ready(engine, 1)
        (life,) = engine._agents["a"].lives
        session = life.session
    assert session is not None
    os.killpg(session, 9)
    await eventually("it is dead", lambda: not session_members(session))
    corrupt(lives(directory, "a-1") / "state.json")
    corrupt(directory / "agents" / "a" / "agent.json")
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(), 1))
        assert (await ready(engine, 1))[0].id == "a-2"


async def test_a_fault_in_one_replicas_story_ends_no_other(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With no descriptor left nobody sees which processes there are: what broke off over it is taken up again, the
    others never notice, and the controller lives."""
    async with local_engine(directory) as engine:
        await engine.act([*wanted(template(), 1), *wanted(template(agent="b"), 1)])
        await ready(engine, 1)
        (other,) = await ready(engine, 1, "b")
        (life,) = engine._agents["a"].lives
        session = life.session
        assert session is not None

        async def blind(_census: Census) -> Look:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(Census, "look", blind)
            os.killpg(session, signal.SIGKILL)
            await eventually("it is told", lambda: "Too many open files" in caplog.text)
        again = await until(engine, "it runs again", lambda view: [r.restarts for r in view.replicas if r.ready] == [1])
        assert again.replicas[0].id == "a-1"
        assert await ready(engine, 1, "b") == (other,)


async def test_a_log_whose_notes_cannot_be_read_is_read_without_times(directory: Path) -> None:
    """What a power cut left of them keeps no controller from starting."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template((*PYTHON, "import time; print('hi'); time.sleep(600)")), 1))
        await ready(engine, 1)
        written = directory / "agents" / "a" / "logs" / "a-1" / "stdout.log"
        await eventually("it has written", lambda: written.read_text() == "hi\n")
    (directory / "agents" / "a" / "logs" / "a-1" / "stdout.marks").write_bytes(b"\xff\x00garbage\n")
    async with local_engine(directory) as engine:
        assert (await ready(engine, 1))[0].restarts == 0
        assert [line.text async for line in engine.logs("a")] == ["hi"]


async def test_the_state_of_a_newer_shoal_is_left_alone(directory: Path) -> None:
    """Refused, with both versions."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(), 1))
        (before,) = await ready(engine, 1)
    noted = (directory / "version").read_text()
    (directory / "version").write_text("99\n")
    with pytest.raises(EngineError, match=r"has version 99, written by a newer Shoal; this one knows 1\. Nothing"):
        await local_engine(directory).__aenter__()
    (directory / "version").write_text(noted)
    async with local_engine(directory) as engine:
        assert await ready(engine, 1) == (before,)


async def test_the_platforms_files_are_made_anew(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Same processes, same passwords and ports, as agents that run were told them."""
    fleet = Fleet(
        fleet="test",
        agents={"a": Agent(port=8000, calls=("b",)), "b": Agent(queue="q")},
        local=LocalOptions(port=0),
    )

    def platform() -> LocalPlatform:
        return LocalPlatform(directory, controller=f"unix:{directory}/controller.sock", gateway=SLEEPER)

    before = await platform().ensure(fleet)
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(), 1, SHOAL_URL_B=f"{before.call_url['a']}/b"))
        await ready(engine, 1)
    root = directory / "platform"
    noted = [json.loads((root / name / "process.json").read_bytes()) for name in ("gateway", "broker")]
    files = [root / "ports.json", root / "broker" / "passwords.json"]
    files += [root / name / "process.json" for name in ("gateway", "broker")]
    for path in files:
        corrupt(path)
    with caplog.at_level(logging.WARNING):
        again = platform()
        after = await again.ensure(fleet)
    assert (after.broker_url, after.broker_admin_url) == (before.broker_url, before.broker_admin_url)
    assert (after.caller_ports, after.call_url) == (before.caller_ports, before.call_url)
    assert all(len(kept_aside(path)) == 1 for path in files)
    assert len(caplog.records) == len(files)
    for name, was in zip(("gateway", "broker"), noted, strict=True):
        service = again._gateway if name == "gateway" else again._broker._service
        assert service._noted is not None
        assert service._noted.process.pid == was["process"]["pid"]
    await again.remove(data=True)


def test_ports_that_nobody_noted_are_chosen(tmp_path: Path) -> None:
    """Where nothing else is left either."""
    corrupt(tmp_path / "ports.json")
    addresses = Addresses(tmp_path / "ports.json")
    addresses.choose(0, "127.0.0.1", ["a"], gateway_runs=False, broker_runs=False)
    assert addresses.public != addresses.callers["a"]


async def test_a_command_without_the_right_to_run_is_told(engine: LocalEngine, directory: Path) -> None:
    """It is there; what lacks is a bit."""
    program = directory.parent / "agent.sh"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o600)
    await engine.act(wanted(template(("./agent.sh",)), 1))
    replica = await in_phase(engine, Phase.BACKOFF)
    assert replica.reason.startswith(f"agents.a.command: {program} is there, but ")
    assert f"may not execute it (chmod +x {program})" in replica.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_a_directory_without_the_right_to_enter_is_told(tmp_path: Path) -> None:
    """By the name of who lacks it."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(0o755)
    machine = local_engine(tmp_path / "state", project_directory=tmp_path)._machine
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.setuid(65534)
        try:
            _working_directory(machine, template(working_dir="closed"))
        except EngineError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as heard:
        said = heard.read()
    os.waitpid(child, 0)
    assert said.startswith(f"agents.a.working_dir: {closed} can't be entered: nobody has no right to {closed} (")


async def test_the_wrong_port_is_told_to_the_end(engine: LocalEngine) -> None:
    """Also by what it is started anew for: both ports are named."""
    elsewhere = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]); time.sleep(600)"
    )
    health = Health(start_period=5.0, interval=0.1)
    await engine.act(wanted(template((*PYTHON, elsewhere), port=8000, health=health), 1))
    view = await until(engine, "it is started anew", lambda view: any(r.restarts for r in view.replicas))
    first = (await collect(engine.logs("a")))[0].text
    assert f"not ready within 5s: listens on {first}, expected " in view.replicas[0].reason
    assert "put $PORT into its command" in view.replicas[0].reason
    view = await until(
        engine, "it runs again", lambda view: view.replicas[0].phase is Phase.RUNNING and view.replicas[0].restarts > 0
    )
    assert "put $PORT into its command" in view.replicas[0].reason


async def test_a_disk_that_refuses_the_corrupt_file_stops_nobody(directory: Path) -> None:
    """Then it stays where it is, and what runs is adopted all the same."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(), 1))
        (before,) = await ready(engine, 1)
    corrupt(lives(directory, "a-1") / "state.json")
    async with local_engine(directory) as engine:
        after = (await ready(engine, 1))[0]
        assert (after.id, after.restarts) == (before.id, 0)
        await eventually("it is watched", lambda: engine._agents["a"].lives[0].session is not None)
