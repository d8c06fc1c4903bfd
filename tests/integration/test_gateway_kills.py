"""SIGKILL under load, again and again: a client in another process counts by id what failed, and for how long."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway_rig import Rig, agent, rig, until

CLIENT = Path(__file__).with_name("counting_client.py")
KILLS = 3
AGAIN_S = 2.0  # 0.42-0.7 s (median to worst of 20) on two cores with a load of 10


@dataclass
class Load:
    results: dict[str, Any] = field(default_factory=dict[str, Any])


@asynccontextmanager
async def load(gateway: Rig, connections: int = 4) -> AsyncGenerator[Load]:
    """Requests from a process of its own meanwhile; the results are there after."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, str(CLIENT), str(gateway.port), str(connections),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=64 << 20,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    found = Load()
    try:
        assert await client.stdout.readline() == b"serving\n"
        yield found
        client.stdin.write(b"\n")
        found.results = json.loads(await client.stdout.readline())
    finally:
        if client.returncode is None:
            client.kill()
        await client.wait()


async def test_a_gateway_process_that_is_killed_fails_no_request(tmp_path: Path) -> None:
    """Its Envoy serves on, and the next gateway process takes that very Envoy over, three times in a row."""
    async with rig(tmp_path) as gateway:
        snapshot = gateway.snapshot(agent("a", await gateway.replica("r"), await gateway.replica("s")))
        await gateway.push(snapshot)
        (envoy,) = gateway.envoys()
        async with load(gateway) as counted:
            for _ in range(KILLS):
                assert gateway.process is not None
                gateway.process.kill()
                await gateway.process.wait()
                await until(lambda: not gateway.link.live)
                await gateway.start()
                await until(lambda: gateway.link.live)
                await gateway.push(snapshot)
                assert [process.pid for process in gateway.envoys()] == [envoy.pid]
        assert counted.results["sent"] == counted.results["distinct"] > 100
        assert counted.results["failed"] == []


async def test_an_envoy_that_is_killed_serves_again_at_once(tmp_path: Path) -> None:
    """Three times in a row; what fails was sent within that time."""
    async with rig(tmp_path) as gateway:
        replica = await gateway.replica("r")
        await gateway.push(gateway.snapshot(agent("a", replica)))
        kills: list[float] = []
        async with load(gateway, 2) as counted:
            for _ in range(KILLS):
                (envoy,) = gateway.envoys()
                before = replica.hits
                kills.append(time.monotonic())
                envoy.kill()
                await until(lambda killed=envoy.pid: [each.pid for each in gateway.envoys()] not in ([], [killed]))
                await until(lambda before=before: replica.hits > before + 20)
                await asyncio.sleep(1.2)
        failed = counted.results["failed"]
        assert counted.results["sent"] == counted.results["distinct"] > 100
        late = [
            (number, status) for number, at, status in failed if not any(0 <= at - kill < AGAIN_S for kill in kills)
        ]
        assert late == [], f"longest gap {counted.results['longest_gap_s']:.3f} s"
        assert counted.results["longest_gap_s"] < AGAIN_S
