"""What a replica may not do: outlive its end somewhere else, have more memory, processes or files than it may."""

import os
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from local_fleet import (
    PYTHON,
    QUICK,
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
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.guard import find_excess
from shoal.engines.local.state import ReplicaState, load_life, store_life
from shoal.spec.model import Resources

MIB = 2**20
UNMARKED = f"602.{os.getpid()}"
DAEMON = """
import os, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():  # whose child is nobody's any more
        os._exit(0)
    while True:
        time.sleep(600)
subprocess.Popen(["/bin/sleep", "601"], start_new_session=True)
if len(sys.argv) > 1:
    subprocess.Popen(["/bin/sleep", sys.argv[1]], start_new_session=True, env={})  # a child, though without the mark
print("begun", flush=True)
time.sleep(600)
"""
EATS = """
import sys, time
eaten = []
while True:
    eaten.append(bytearray(b"x") * (4 * 1024 * 1024))
    time.sleep(0.01)
"""
SHARES = """
import os, time
eaten = bytearray(b"x") * (40 * 1024 * 1024)
for _ in range(3):
    if os.fork() == 0:
        break
time.sleep(600)
"""
FORKS = """
import os, time
while True:
    if os.fork() == 0:
        time.sleep(600)
    time.sleep(0.002)
"""


def family(directory: Path) -> list[psutil.Process]:
    """Whatever was started by the test's replica, by the arguments or the environment that only these have."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get("SHOAL_LIFE", "").endswith(f"@{directory}/agents/a/lives/a-1")
            if process.status() != psutil.STATUS_ZOMBIE and (marked or process.cmdline() == ["/bin/sleep", UNMARKED]):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def session_of(process: psutil.Process) -> int | None:
    with suppress(ProcessLookupError):
        return os.getsid(process.pid)
    return None


def still_runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def begun(engine: LocalEngine) -> bool:
    return any(line.text == "begun" for line in await collect(engine.logs("a")))


async def all_known(engine: LocalEngine, directory: Path) -> bool:
    """Whether somebody has looked since the whole family is there."""
    known = (await engine._machine.census.look()).directories
    return len(family(directory)) == 5 and all(process.pid in known for process in family(directory))


async def test_children_in_sessions_of_their_own_end_too(engine: LocalEngine, directory: Path) -> None:
    """A daemon, a child that called setsid, one without the environment: all are gone when the replica is."""
    await engine.act(wanted(template((*PYTHON, DAEMON, UNMARKED)), 1))
    await eventually("all are there, with the leader", lambda: all_known(engine, directory))
    assert len({session_of(process) for process in family(directory)} - {None}) == 4
    await engine.act([Remove("a")])
    await until(engine, "it is gone", lambda view: not view.replicas)
    assert family(directory) == []
    assert processes_below(directory) == []


async def test_a_restart_leaves_nothing_of_the_start_before(engine: LocalEngine, directory: Path) -> None:
    """A leader that is killed takes with it what it led, wherever that went."""
    await engine.act(wanted(template((*PYTHON, DAEMON, UNMARKED)), 1))
    await eventually("all are there, with the leader", lambda: all_known(engine, directory))
    before = family(directory)
    leader = next(process for process in before if process.pid == session_of(process) and process.name() == "sh")
    leader.kill()
    await until(engine, "it was started anew", lambda view: view.replicas[0].restarts == 1)
    assert not any(map(still_runs, before))


@pytest.mark.parametrize("noted", [True, False])
async def test_what_a_dead_controller_s_dead_leader_left_is_killed(directory: Path, noted: bool) -> None:
    """It is ended before another is started in its place. Where both were killed before the start was noted, only the
    mark tells what belongs to the replica."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template((*PYTHON, DAEMON)), 1))
        await eventually("it has begun", lambda: begun(engine))
    before = family(directory)
    leader = next(process for process in before if process.pid == session_of(process) and process.name() == "sh")
    leader.kill()
    await eventually("the leader is dead", lambda: not still_runs(leader))  # a busy machine takes its time to end it
    if not noted:
        path = directory / "agents" / "a" / "lives" / "a-1" / "state.json"
        state = load_life(path)
        assert isinstance(state, ReplicaState) and state.start is not None
        state.start.process, state.phase, state.ready, state.started_at = None, Phase.PENDING, False, None
        store_life(path, state)
    async with local_engine(directory) as engine:
        await ready(engine, 1)
        assert not any(map(still_runs, before))
        await engine.act([Scale("a", "r1", 0)])
        await until(engine, "it is gone", lambda view: not view.replicas)


async def test_what_belongs_to_nobody_here_is_left_alone(engine: LocalEngine) -> None:
    """Another fleet's replica of the same name has another mark."""
    other = {**os.environ, "SHOAL_REPLICA": "a-1", "SHOAL_LIFE": "replica:r1@/elsewhere/agents/a/lives/a-1"}
    bystander = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, env=other)
    try:
        await engine.act(wanted(template(), 1))
        await ready(engine, 1)
        await engine.act([Scale("a", "r1", 0)])
        await until(engine, "it is gone", lambda view: not view.replicas)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_too_much_memory_is_told(engine: LocalEngine) -> None:
    """`resources.memory` is a limit: above it a replica is killed and started anew, with both amounts."""
    await engine.act(wanted(template((*PYTHON, EATS), resources=Resources(memory=64 * MIB)), 1))
    replica = await in_phase(engine, Phase.BACKOFF)
    said = replica.reason.split()
    assert said[:4] == ["out", "of", "memory:", "used"]
    assert 64 < int(said[4]) < 1024
    assert said[5:9] == ["MiB,", "limit", "64", "MiB"]
    assert replica.exit_code == 137


async def test_too_much_memory_fails_a_run(engine: LocalEngine) -> None:
    """An attempt as any that fails."""
    job = RunJob("a", "r1", "a-now")
    await engine.act([*wanted(template((*PYTHON, EATS), resources=Resources(memory=64 * MIB)), 0), job])
    view = await until(engine, "it has failed", lambda view: view.runs[0].phase is Phase.FAILED)
    assert view.runs[0].reason.startswith("out of memory: used ")
    assert view.runs[0].exit_code == 137


async def test_memory_that_forked_children_share_is_counted_once(engine: LocalEngine) -> None:
    """Four processes of 40 MiB that are the same 40 MiB stay below 100."""
    await engine.act(wanted(template((*PYTHON, SHARES), resources=Resources(memory=100 * MIB)), 1))
    await ready(engine, 1)

    async def seen() -> bool:
        usage = (await engine.usage()).get("a-1")
        return usage is not None and usage.memory_bytes > 150 * MIB  # resident, each for itself

    await eventually("all four are seen", seen)
    (life,) = engine._agents["a"].lives
    members = (await engine._machine.census.look()).family(life.directory, life.session)
    assert sum(member.resident_bytes for member in members) > 150 * MIB
    assert find_excess(members, 100 * MIB, 4096) is None
    assert (await engine.observe()).agents["a"].replicas[0].restarts == 0


async def test_too_many_processes_are_told(directory: Path) -> None:
    """What forks without end is ended, all of it, and the others go on."""
    async with local_engine(directory, timing=replace(QUICK, most_tasks=50)) as engine:
        await engine.act([*wanted(template((*PYTHON, FORKS)), 1), *wanted(template(agent="b"), 1)])
        replica = await in_phase(engine, Phase.BACKOFF)
        assert replica.reason.startswith("too many processes: ")
        assert "limit 50" in replica.reason
        await engine.act([Remove("a")])
        await until(engine, "it is gone", lambda view: not view.replicas)
        assert family(directory) == []
        assert (await ready(engine, 1, "b"))[0].restarts == 0


async def test_files_are_limited(engine: LocalEngine) -> None:
    """However many Shoal itself may open."""
    says = (*PYTHON, "import resource, time; print(resource.getrlimit(resource.RLIMIT_NOFILE)); time.sleep(600)")
    await engine.act(wanted(template(says), 1))

    async def said() -> bool:
        return bool(await collect(engine.logs("a")))

    await eventually("it has said so", said)
    (line,) = await collect(engine.logs("a"))
    soft, hard = (int(number) for number in line.text.strip("()").split(","))
    assert 0 < soft <= hard <= 65536


async def test_a_clock_that_is_set_holds_nothing_up(directory: Path) -> None:
    """Back an hour: no restart waits for it, no grace period is stretched. Forward: none is cut short."""
    now = psutil.boot_time() + 1e6
    ignores = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('begun', flush=True); time.sleep(600)"
    async with local_engine(directory, clock=lambda: now) as engine:
        await engine.act(wanted(template((*PYTHON, "raise SystemExit(3)")), 1))
        await until(engine, "it has failed", lambda view: view.replicas[0].restarts >= 1)
        now -= 3600
        failed = (await engine.observe()).agents["a"].replicas[0].restarts
        await until(engine, "it fails on", lambda view: view.replicas[0].restarts >= failed + 3)
        await engine.act([Remove("a")])
        await until(engine, "it is gone", lambda view: not view.replicas)
        await engine.act(wanted(template((*PYTHON, ignores), stop_grace_period_s=1.0), 1))
        await eventually("it ignores SIGTERM", lambda: begun(engine))
        began = engine._machine.now
        await engine.act([Scale("a", "r1", 0)])
        now += 7200
        await in_phase(engine, Phase.STOPPING)
        now -= 7200
        await until(engine, "it is gone", lambda view: not view.replicas)
        assert 0.9 < began.age_s(engine._machine.now) < 5


async def test_a_clock_that_is_set_between_two_controllers_holds_nothing_up(directory: Path) -> None:
    """What the next one finds noted is counted on no clock that people set."""
    now = psutil.boot_time() + 1e6
    ignores = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('begun', flush=True); time.sleep(600)"
    patient = replace(QUICK, backoff_s=0.5, backoff_max_s=0.5)
    async with local_engine(directory, clock=lambda: now, timing=patient) as engine:
        await engine.act(wanted(template((*PYTHON, ignores), stop_grace_period_s=1.0), 1))
        await engine.act(wanted(template((*PYTHON, "raise SystemExit(3)"), agent="b"), 1))
        await engine.act([*wanted(template(("/bin/sleep", "600"), agent="c"), 0), RunJob("c", "r1", "c-now", 600.0)])
        await eventually("it ignores SIGTERM", lambda: begun(engine))
        await until(engine, "it runs", lambda view: view.runs[0].phase is Phase.RUNNING, "c")
        await in_phase(engine, Phase.BACKOFF, "b")
        began = engine._machine.now
        await engine.act([Scale("a", "r1", 0)])
    for step in (-3600, 7200):
        async with local_engine(directory, clock=lambda now=now + step: now, timing=patient) as engine:
            failed = (await engine.observe()).agents["b"].replicas[0].restarts
            await until(engine, "it fails on", lambda view, n=failed: view.replicas[0].restarts > n, "b")
            run = (await engine.observe()).agents["c"].runs[0]
            assert (run.phase, run.reason) == (Phase.RUNNING, "")
            if step < 0:
                await until(engine, "it is gone", lambda view: not view.replicas)
                assert 0.9 < began.age_s(engine._machine.now) < 5
