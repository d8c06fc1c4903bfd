"""A controller that is gone: replicas live on, and the next one finds them."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from local_fleet import (
    PYTHON,
    SLEEPER,
    all_ready,
    collect,
    eventually,
    in_phase,
    local_engine,
    processes_below,
    ready,
    template,
    until,
    wanted,
)

from shoal.core.action import Remove, RunJob, Scale
from shoal.core.observed import Phase
from shoal.engines.local import agent as local_agent
from shoal.engines.local.census import read_member
from shoal.engines.local.process import (
    Identity,
    Process,
    boot_id,
    identify,
    is_alive,
    kill_remnants,
    session_members,
)
from shoal.engines.local.state import AgentState, ReplicaState, load_agent, load_life, store_agent, store_life


def manifest(directory: Path, replica: str) -> Path:
    return directory / "agents" / "a" / "lives" / replica / "state.json"


def state_of(directory: Path, replica: str) -> ReplicaState:
    state = load_life(manifest(directory, replica))
    assert isinstance(state, ReplicaState)
    return state


def pid_of(directory: Path, replica: str) -> int:
    start = state_of(directory, replica).start
    assert start is not None
    assert start.process is not None
    return start.process.pid


async def test_the_next_engine_takes_over_without_a_restart(directory: Path) -> None:
    """Same ids, ports, processes, readiness; and it is watched again."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(port=8000), 2))
        before = await ready(engine, 2)
    pids = [pid_of(directory, replica.id) for replica in before]
    async with local_engine(directory) as engine:
        view = (await engine.observe()).agents["a"]
        assert view.replicas == before
        assert view.counts == {"r1": 2}
        assert [pid_of(directory, replica.id) for replica in before] == pids
        os.killpg(pids[0], signal.SIGKILL)
        view = await until(engine, "it was restarted", lambda view: any(r.restarts for r in view.replicas))
        assert view.replicas[0].restarts == 1
        await ready(engine, 2)
        await engine.act([Scale("a", "r1", 0)])
        await until(engine, "all are gone", lambda view: not view.replicas)
    assert processes_below(directory) == []


async def test_a_controller_that_is_killed_loses_nothing(directory: Path) -> None:
    """kill -9 in the middle of its work."""
    program = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from local_fleet import *
        async def main():
            async with local_engine(Path(sys.argv[1])) as engine:
                await engine.act(wanted(template(port=8000), 2))
                await ready(engine, 2)
                print("ready", flush=True)
                await asyncio.sleep(600)
        asyncio.run(main())
    """)
    controller = subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    try:
        assert controller.stdout is not None
        assert controller.stdout.readline() == b"ready\n"
    finally:
        controller.kill()
        controller.wait()
        assert controller.stdout is not None
        controller.stdout.close()
    async with local_engine(directory) as engine:
        replicas = (await engine.observe()).agents["a"].replicas
        assert [(replica.id, replica.ready, replica.restarts) for replica in replicas] == [
            ("a-1", True, 0),
            ("a-2", True, 0),
        ]
        assert all(psutil.pid_exists(pid_of(directory, replica.id)) for replica in replicas)


async def test_what_ended_meanwhile_is_told_and_started_again(directory: Path) -> None:
    """The leader stored how it ended."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(("/bin/sh", "-c", "while [ ! -e go ]; do sleep 0.01; done; exit 7")), 1))
        await ready(engine, 1)
    exit_path = manifest(directory, "a-1").with_name("exit-1")
    (directory.parent / "go").touch()
    await eventually("its leader has stored the status", lambda: exit_path.exists() and exit_path.read_text() != "")
    await eventually("the leader is gone", lambda: not processes_below(directory))
    async with local_engine(directory) as engine:
        view = await until(engine, "it is told", lambda view: view.replicas[0].exit_code is not None)
        assert view.replicas[0].exit_code == 7
        assert view.replicas[0].restarts >= 1


async def test_a_recycled_pid_is_not_ours(directory: Path) -> None:
    """A process with the pid but another start time is neither adopted nor signalled."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(), 1))
        await ready(engine, 1)
    state = state_of(directory, "a-1")
    os.killpg(pid_of(directory, "a-1"), signal.SIGKILL)
    bystander = subprocess.Popen(SLEEPER, start_new_session=True)
    try:
        assert state.start is not None
        state.start.process = Identity(bystander.pid, "1", boot_id())
        store_life(manifest(directory, "a-1"), state)
        async with local_engine(directory) as engine:
            view = await until(engine, "it is started anew", all_ready(1))
            assert view.replicas[0].restarts == 1
            assert pid_of(directory, "a-1") != bystander.pid
            await engine.act([Scale("a", "r1", 0)])
            await until(engine, "it is gone", lambda view: not view.replicas)
        assert bystander.poll() is None
        assert not kill_remnants(Identity(bystander.pid, "1", boot_id()), "a-1", just_ended=True)
        assert bystander.poll() is None
        real = identify(bystander.pid)
        assert real is not None
        assert is_alive(real)
        assert not is_alive(Identity(real.pid, real.started, "another boot"))
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_pidfd_of_somebody_else_ends_the_watch(directory: Path) -> None:
    """A handle on a pid that has changed hands reports the end at once."""
    bystander = subprocess.Popen(SLEEPER)
    ended: list[bool] = []
    process = Process(Identity(bystander.pid, "1", boot_id()), lambda: ended.append(True))
    try:
        await eventually("the end is told", lambda: ended == [True])
        process.signal_group(signal.SIGKILL)
        assert bystander.poll() is None
    finally:
        process.close()
        bystander.kill()
        bystander.wait()


async def test_without_its_agents_file_a_replica_still_ends_in_peace(directory: Path) -> None:
    """Its own file says what runs; it is told to end and has its grace period."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(port=8000), 1))
        await ready(engine, 1)
    (directory / "agents" / "a" / "agent.json").write_bytes(b"{")
    async with local_engine(directory) as engine:
        await engine.act([Scale("a", "r1", 0)])
        await until(engine, "it is gone", lambda view: not view.replicas)
        assert [line.text for line in await collect(engine.logs("a"))] == ["hello from a-1", "bye"]


async def test_a_full_disk_ends_no_engine(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that runs nor one that starts; what was not stored is stored when there is room again."""
    manifest = directory / "agents" / "a" / "agent.json"
    full = False

    def store(path: Path, state: AgentState) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        store_agent(path, state)

    monkeypatch.setattr(local_agent, "store_agent", store)
    async with local_engine(directory) as engine:
        await engine.act([*wanted(template(), 1), *wanted(template(), 1, "r2")])
        await ready(engine, 2)
        full = True
        assert await engine.act([Remove("a", "r1")]) == ()
        await ready(engine, 1)
        assert '"r1"' in manifest.read_text()
        full = False
        await eventually("it is stored", lambda: '"r1"' not in manifest.read_text())
    state = load_agent(manifest)
    assert state is not None
    state.revisions["r2"].count = 2
    store_agent(manifest, state)
    full = True
    async with local_engine(directory) as engine:
        await ready(engine, 2)


async def test_what_cannot_be_read_is_not_taken_for_ended(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no descriptor left nobody can tell who runs: nothing is started beside it, and its end is told later."""
    sleeper = subprocess.Popen(SLEEPER)
    identity = identify(sleeper.pid)
    assert identity is not None
    ended: list[bool] = []

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        patch.setattr(os, "pidfd_open", refuse)
        process = Process(identity, lambda: ended.append(True))
        await asyncio.sleep(0.3)
        assert (process.alive, ended) == (True, [])
    try:
        sleeper.kill()
        await eventually("the end is told", lambda: ended == [True])
    finally:
        process.close()
        sleeper.kill()
        sleeper.wait()


async def test_a_start_that_was_never_noted_is_found(directory: Path) -> None:
    """The controller died between its intent and the note of the pid: the leader's own words tell."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(port=8000), 1))
        (before,) = await ready(engine, 1)
    pid = pid_of(directory, "a-1")
    state = state_of(directory, "a-1")
    assert state.start is not None
    state.start.process, state.phase, state.ready, state.started_at = None, Phase.PENDING, False, None
    store_life(manifest(directory, "a-1"), state)
    async with local_engine(directory) as engine:
        (after,) = await ready(engine, 1)
        assert (after.id, after.port, after.restarts) == (before.id, before.port, 0)
        assert pid_of(directory, "a-1") == pid


async def test_a_stop_is_carried_on(directory: Path) -> None:
    """What was told to end is killed by the next controller when its time is over."""
    ignores = (*PYTHON, "import signal, time; signal.signal(15, signal.SIG_IGN); open('deaf', 'w'); time.sleep(600)")
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(ignores, stop_grace_period_s=1.0), 1))
        await ready(engine, 1)
        await eventually("it ignores SIGTERM", (directory.parent / "deaf").exists)
        await engine.act([Scale("a", "r1", 0)])
        await in_phase(engine, Phase.STOPPING)
    async with local_engine(directory) as engine:
        await in_phase(engine, Phase.STOPPING)
        await until(engine, "it is gone", lambda view: not view.replicas)
    assert processes_below(directory) == []


def test_one_whose_first_thread_has_ended_lives() -> None:
    """It looks like a zombie, and still holds all that it had: nobody may be started in its place."""
    program = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); "
    child = subprocess.Popen([*PYTHON, f"{program}ctypes.CDLL(None).pthread_exit(None)"], start_new_session=True)
    try:
        while Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
            time.sleep(0.01)
        assert identify(child.pid) is not None and read_member(child.pid) is not None
        assert session_members(child.pid) == [child.pid]
        child.kill()
        while session_members(child.pid):
            time.sleep(0.01)
        assert identify(child.pid) is None and read_member(child.pid) is None  # not reaped yet
    finally:
        child.kill()
        child.wait()


async def test_an_ordinal_has_one_holder(directory: Path) -> None:
    """Also across a change of controller: the next revision's holder waits until the one before it is gone."""
    ignores = (*PYTHON, "import signal, time; signal.signal(15, signal.SIG_IGN); open('deaf', 'w'); time.sleep(600)")
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(ignores, stateful=True, stop_grace_period_s=1.0), 1))
        await ready(engine, 1)
        await eventually("it ignores SIGTERM", (directory.parent / "deaf").exists)
        await engine.act([Scale("a", "r1", 0), *wanted(template(stateful=True), 1, "r2")])
        waiting = await in_phase(engine, Phase.PENDING)
        assert waiting.ordinal == 0
    async with local_engine(directory) as engine:
        view = await until(engine, "it waits", lambda view: any("ordinal 0" in r.reason for r in view.replicas))
        assert {replica.phase for replica in view.replicas} == {Phase.STOPPING, Phase.PENDING}
        (holder,) = await ready(engine, 1)
        assert (holder.revision, holder.ordinal) == ("r2", 0)


async def test_a_run_goes_on_and_is_never_repeated(directory: Path) -> None:
    """A job that ends while nobody looks has ended; its id does not run again."""
    command = ("/bin/sh", "-c", "echo x >>count; while [ ! -e go ]; do sleep 0.01; done")
    job = RunJob("a", "r1", "a-2026-01-01T02:00:00")
    async with local_engine(directory) as engine:
        await engine.act([*wanted(template(command), 0), job, job])
        await until(engine, "it runs", lambda view: any(run.phase is Phase.RUNNING for run in view.runs))
    (directory.parent / "go").touch()
    await eventually("the leader is gone", lambda: not processes_below(directory))
    async with local_engine(directory) as engine:
        view = await until(engine, "its end is told", lambda view: view.runs[0].phase is Phase.SUCCEEDED)
        assert [(run.run_id, run.attempt, run.exit_code) for run in view.runs] == [(job.run_id, 1, 0)]
        await engine.act([job])
        assert len((await engine.observe()).agents["a"].runs) == 1
    async with local_engine(directory) as engine:
        assert (await engine.observe()).agents["a"].runs == view.runs
        await engine.act([job])
        assert (directory.parent / "count").read_text() == "x\n"
