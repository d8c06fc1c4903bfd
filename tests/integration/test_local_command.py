"""A command beside a replica, and its end when whoever asked for it goes."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing

import psutil

from shoal.engines.local.command import run_command

DEAF = "trap '' HUP; echo ready; while :; do sleep 1; done"


async def test_who_is_cancelled_while_it_is_hung_up_on_sees_it_end() -> None:
    """It is no zombie then, nor somebody's to be found later."""
    others = {child.pid for child in psutil.Process().children()}
    found: list[psutil.Process] = []
    asked = asyncio.Event()

    async def run() -> None:
        async with run_command(os.getpid(), ["sh", "-c", DEAF], tty=False) as command:
            async with aclosing(command.output()) as output:
                assert await anext(output) == ("stdout", b"ready\n")
            found.extend(child for child in psutil.Process().children() if child.pid not in others)
            asked.set()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run())
        await asked.wait()
        await asyncio.sleep(0)  # it is hung up on
        task.cancel()
    assert task.cancelled()
    assert len(found) == 1 and not found[0].is_running()
