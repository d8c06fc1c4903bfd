"""SIGKILL for whatever there is, at instants that a seed draws: the next controller finds all of it again.

What must hold after each: a replica whose leader and command live is adopted as it is, no ordinal has ever two holders,
and in the end nothing is left behind.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from local_fleet import DEADLINE_S, PYTHON, local_engine, processes_below, template, until, wanted

from shoal.core.action import Remove, Scale
from shoal.engines.local.census import Census, read_member
from shoal.engines.local.engine import LocalEngine
from shoal.engines.local.render import LEADER_NAME
from shoal.engines.local.state import ReplicaState, load_agent, load_life

ROUNDS = 4
HOLDER = """
import fcntl, os, subprocess, sys, time
subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
hold = os.open(sys.argv[1] + "/held", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open(sys.argv[1] + "/two-holders", "w").close()
time.sleep(600)
"""
CONTROLLER = """
import asyncio, random, sys
from pathlib import Path
from local_fleet import *
from test_local_engine_kills import SHAPES
async def main():
    draw = random.Random(int(sys.argv[2]))
    async with local_engine(Path(sys.argv[1])) as engine:
        print("open", flush=True)
        while True:
            for shape in SHAPES:
                await engine.act(wanted(shape, draw.randint(0, 3)))
                await asyncio.sleep(draw.random() * 0.2)
asyncio.run(main())
"""
SHAPES = (
    template((*PYTHON, HOLDER, "$SHOAL_VOLUME_DATA"), agent="s", stateful=True, volumes=("data:/d",)),
    template(agent="w"),
)


def leaders(directory: Path) -> dict[str, int]:
    """Pids of the leaders that live and have a child, by replica."""
    found: dict[str, int] = {}
    look = Census().look_now()
    parents = {member.parent for member in look.members.values()}
    for pid, life in look.directories.items():
        with contextlib.suppress(psutil.Error, OSError):
            heads = LEADER_NAME in psutil.Process(pid).cmdline() and os.getsid(pid) == pid
            if heads and life.startswith(str(directory)) and pid in parents:
                found[Path(life).name] = pid
    return found


def expected(directory: Path) -> dict[str, int]:
    """Of those, the ones that nobody told to end, of agents that have not more of them than they were to have."""
    kept: dict[str, int] = {}
    alive = leaders(directory)
    for shape in SHAPES:
        agent = directory / "agents" / shape.agent
        state = load_agent(agent / "agent.json")
        lives = [load_life(path) for path in (agent / "lives").glob("*/state.json")]
        staying = [life for life in lives if isinstance(life, ReplicaState) and life.stop_due is None]
        if state is not None and len(staying) <= sum(known.count for known in state.revisions.values()):
            kept |= {life.id: alive[life.id] for life in staying if life.id in alive}
    return kept


def kill_something(draw: random.Random, directory: Path) -> set[int]:
    """A command, its leader, both one after the other, or the group; whom it ends: no leader outlives its command."""
    alive = leaders(directory)
    if not alive:
        return set()
    leader = alive[draw.choice(sorted(alive))]
    ending = {leader}
    with contextlib.suppress(psutil.Error, OSError):
        commands = psutil.Process(leader).children()
        what = draw.choice(["command", "leader", "both", "group"])
        if what in {"command", "both"}:
            for command in commands:
                command.kill()
                ending.add(command.pid)
        if what in {"leader", "both"}:
            os.kill(leader, signal.SIGKILL)
        if what == "group":
            os.killpg(leader, signal.SIGKILL)
    return ending


def wait_until_dead(pids: set[int]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while left := [pid for pid in pids if read_member(pid) is not None]:
        assert time.monotonic() < deadline, left
        time.sleep(0.005)


def run_controller_and_kill_it(draw: random.Random, directory: Path) -> None:
    controller = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CONTROLLER), str(directory), str(draw.getrandbits(32))],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert controller.stdout is not None
    killed: set[int] = set()
    try:
        assert controller.stdout.readline() == b"open\n"
        for _ in range(draw.randint(0, 3)):
            time.sleep(draw.random() * 0.3)
            killed |= kill_something(draw, directory)
        time.sleep(draw.random() * 0.3)
    finally:
        controller.kill()
        controller.wait()
        controller.stdout.close()
    wait_until_dead(killed)


def sessions(engine: LocalEngine) -> dict[str, int | None]:
    return {life.id: life.session for life in engine._lives()}


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_killed_the_next_controller_finds_the_rest(directory: Path, seed: int) -> None:
    """Also in the middle of a start or of a stop."""
    draw, adopted_in_all = random.Random(seed), 0
    for _ in range(ROUNDS):
        run_controller_and_kill_it(draw, directory)
        if draw.random() < 0.5:
            wait_until_dead(kill_something(draw, directory))
        before = expected(directory)
        async with local_engine(directory) as engine:
            adopted = sessions(engine)
            assert {identity: adopted.get(identity) for identity in before} == before
            adopted_in_all += len(before)
            assert not list(directory.glob("volumes/owned/*/*/*/two-holders"))
    async with local_engine(directory) as engine:
        await engine.act([*wanted(SHAPES[0], 1), *wanted(SHAPES[1], 1)])
        await engine.act([Scale("s", "r1", 0), Remove("s"), Remove("w")])
        for agent in ("s", "w"):
            await until(engine, "it is gone", lambda view: not view.replicas, agent)
    assert not list(directory.glob("volumes/owned/*/*/*/two-holders"))
    assert processes_below(directory) == []
    assert adopted_in_all > 0
