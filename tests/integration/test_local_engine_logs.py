"""What replicas wrote: across rotations, replicas and their ends."""

import asyncio
from dataclasses import replace
from pathlib import Path

from local_fleet import (
    DEADLINE_S,
    PYTHON,
    QUICK,
    collect,
    eventually,
    local_engine,
    ready,
    template,
    until,
    wanted,
)

from shoal.core.action import Scale
from shoal.engines.local.engine import LocalEngine

SMALL = replace(QUICK, log_bytes=2000, follow_s=0.005)
COUNTS = """
import os, time
for number in range(600):
    step = number % 67  # 66 lines are no more than 2000 bytes; the next is, and is followed by silence
    if step == 66:
        time.sleep(0.2)
    os.write(1, f"line {number} ".ljust(29, "x").encode() + b"\\n")
    time.sleep(0.001 if step < 66 else 0.3)
time.sleep(600)
"""


async def test_logs_are_rotated_while_they_are_written(directory: Path) -> None:
    """No more than the kept copies; what is there is whole and in order."""
    async with local_engine(directory, timing=SMALL) as engine:
        await engine.act(wanted(template((*PYTHON, COUNTS)), 1))
        logs = directory / "agents" / "a" / "logs" / "a-1"
        await eventually("it was rotated", (logs / "stdout.log.3").exists)

        async def last_is_there() -> bool:
            return any("line 599 " in line.text for line in await collect(engine.logs("a")))

        await eventually("it has written all", last_is_there)
        lines = await collect(engine.logs("a"))
        numbers = [int(line.text.split()[1]) for line in lines]
        assert numbers == list(range(numbers[0], 600))
        assert not (logs / "stdout.log.4").exists()
        tail = await collect(engine.logs("a", tail=3))
        assert [line.text.split()[1] for line in tail] == ["597", "598", "599"]


async def test_following_goes_across_a_rotation(directory: Path) -> None:
    """Every line once, those of a replica that comes later too."""
    async with local_engine(directory, timing=SMALL) as engine:
        await engine.act(wanted(template((*PYTHON, COUNTS)), 1))
        seen: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            async for line in engine.logs("a", follow=True):
                seen.append(f"{line.replica} {line.text.split()[1]}")
                if seen[-1] == "a-1 300":
                    await engine.act([Scale("a", "r1", 2)])
                if {"a-1 599", "a-2 100"} <= set(seen):
                    break
        assert len(seen) == len(set(seen))
        first = [int(text.split()[1]) for text in seen if text.startswith("a-1")]
        assert first == list(range(600))


async def test_times_are_those_of_growth(directory: Path) -> None:
    """`since` leaves out what is known to be older."""
    speaks = (
        "import os, time\nfor n in (1, 2):\n  print(n, flush=True)\n  while not os.path.exists('go'): time.sleep(.01)"
    )
    async with local_engine(directory) as engine:
        await engine.act(wanted(template((*PYTHON, f"{speaks}\ntime.sleep(600)")), 1))

        async def first_is_timed() -> bool:
            lines = await collect(engine.logs("a"))
            return bool(lines) and lines[0].at is not None

        await eventually("the first line has a time", first_is_timed)
        (first,) = await collect(engine.logs("a"))
        (directory.parent / "go").touch()
        await eventually("both are there", lambda: _count(engine, 2))
        assert [line.text for line in await collect(engine.logs("a", since=first.at + 0.001))] == ["2"]
        assert first.stream == "stdout"


async def test_streams_and_gone_replicas(directory: Path) -> None:
    """What a replica wrote can be read after its end, stderr as such."""
    async with local_engine(directory) as engine:
        await engine.act(wanted(template(("/bin/sh", "-c", "echo out; echo err >&2; sleep 600")), 2))
        await ready(engine, 2)
        await eventually("all is written", lambda: _count(engine, 4))
        await engine.act([Scale("a", "r1", 0)])
        await until(engine, "they are gone", lambda view: not view.replicas)
        lines = {(line.replica, line.stream, line.text) for line in await collect(engine.logs("a"))}
        assert {("a-1", "stdout", "out"), ("a-1", "stderr", "err"), ("a-2", "stdout", "out")} <= lines


async def _count(engine: LocalEngine, number: int) -> bool:
    return len(await collect(engine.logs("a"))) >= number
