"""What outlives what: the hold, the drain barrier, and gateways, Envoys and controllers that die."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from aiohttp import ClientError, web
from gateway_rig import Rig, agent, free_port, rig, until

from shoal.core.routing import Snapshot
from shoal.proxy.link import serve_gateways


async def serves(gateway: Rig, path: str = "/a/") -> bool:
    """Whether one request gets through now."""
    try:
        return (await gateway.get(path)).status == 200
    except (ClientError, OSError):
        return False


async def until_serves(gateway: Rig, path: str = "/a/") -> None:
    end = time.monotonic() + 20
    while not await serves(gateway, path):
        assert time.monotonic() < end, gateway.log()
        await asyncio.sleep(0.01)


async def test_requests_are_held_until_a_replica_is_healthy(tmp_path: Path) -> None:
    """They are told of at once, keep their bodies, and go on within moments of the replica's first good check."""
    async with rig(tmp_path) as gateway:
        empty = gateway.snapshot(agent("a", hold=True))
        await gateway.push(empty)
        async with asyncio.TaskGroup() as tasks:
            posts = [tasks.create_task(gateway.get("/a/x", method="POST", data=b"body")) for _ in range(20)]
            await until(lambda: gateway.traffic("a").held == 20)
            replica = await gateway.replica("late")
            began = time.monotonic()
            gateway.link.push(replace(empty, agents={"a": agent("a", replica, hold=True)}))
        took = time.monotonic() - began
        assert [task.result().status for task in posts] == [200] * 20
        assert took < 2.0  # some 20 ms on an idle machine
        await until(lambda: gateway.traffic("a").held == 0)


async def test_the_hold_ends(tmp_path: Path) -> None:
    """After its time, or soon where there is no controller: 503, and when to come again."""
    async with rig(tmp_path, "--hold", "0.5") as gateway:
        await gateway.push(gateway.snapshot(agent("a", hold=True)))
        got = await gateway.get("/a/")
        assert (got.status, got.headers["retry-after"]) == (503, "5")
        assert "within 0.5 s" in got.text
        await until(lambda: gateway.traffic("a").failures == 1)


async def test_the_acknowledgement_is_the_drain_barrier(tmp_path: Path) -> None:
    """A replica that is taken out and stopped after the ACK costs no request, under load and again and again."""
    async with rig(tmp_path) as gateway:
        names = ("x", "y", "z")
        replicas = {name: await gateway.replica(name) for name in names}
        await gateway.push(gateway.snapshot(agent("a", *replicas.values())))
        statuses: Counter[int] = Counter()
        done = asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                statuses[(await gateway.get("/a/", method="POST", data=b"x")).status] += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(load())
            for name in names * 2:
                rest = [replica for replica in replicas.values() if replica.name != name]
                version = gateway.link.push(gateway.snapshot(agent("a", *rest)))
                assert await gateway.link.wait_acknowledged(version) == ()
                await until(lambda name=name: replicas[name].active == 0)
                await replicas[name].stop()
                before = sum(statuses.values())
                await until(lambda before=before: sum(statuses.values()) > before + 50)
                await replicas[name].start()
                await gateway.push(gateway.snapshot(agent("a", *replicas.values())))
            done.set()
        assert set(statuses) == {200}, statuses


async def test_a_killed_envoy_comes_back_with_the_last_snapshot(tmp_path: Path) -> None:
    """And the controller is told how it ended."""
    async with rig(tmp_path) as gateway:
        await gateway.push(gateway.snapshot(agent("a", await gateway.replica("r"))))
        (first,) = gateway.envoys()
        first.kill()
        ends: list[tuple[str, str]] = []
        await until(lambda: ends.extend((name, end.how) for name, end in gateway.link.take_ends()) or ends)
        assert [how for _, how in ends] == ["signal 9"]
        await until(lambda: [process.pid for process in gateway.envoys()] not in ([], [first.pid]))
        await until_serves(gateway)
        version = gateway.link.push(gateway.snapshot(agent("b", await gateway.replica("s"))))
        assert await gateway.link.wait_acknowledged(version, 20) == ()


async def test_a_killed_gateway_leaves_an_envoy_that_the_next_one_adopts(tmp_path: Path) -> None:
    """Nothing fails in between, and no second Envoy is started."""
    async with rig(tmp_path) as gateway:
        await gateway.push(gateway.snapshot(agent("a", await gateway.replica("r")), agent("asleep", hold=True)))
        (left,) = gateway.envoys()
        assert gateway.process is not None
        gateway.process.kill()
        await gateway.process.wait()
        await until(lambda: not gateway.link.live)
        assert await serves(gateway)
        nobody = await gateway.get("/asleep/")
        assert (nobody.status, nobody.headers["retry-after"]) == (503, "5")
        await gateway.start()
        await until(lambda: gateway.link.live)
        await gateway.push(gateway.snapshot(agent("b", await gateway.replica("s"))))
        assert await serves(gateway, "/b/")
        assert [process.pid for process in gateway.envoys()] == [left.pid]


async def test_without_a_controller_the_gateway_serves(tmp_path: Path) -> None:
    """Even one that is started anew, with an Envoy started anew; and a new controller takes it over."""
    async with rig(tmp_path) as gateway:
        replica = await gateway.replica("r")
        snapshot = gateway.snapshot(agent("a", replica), agent("asleep", hold=True))
        await gateway.push(snapshot)
        stored = tmp_path / "gateway" / "snapshot.json"
        await until(stored.exists)
        await gateway.controller.aclose()
        assert await serves(gateway)
        await _restart(gateway)
        await until_serves(gateway)
        refused = await gateway.get("/asleep/")
        assert refused.status == 503
        assert "no controller" in refused.text
        await _take_over(gateway, snapshot)


async def _restart(gateway: Rig) -> None:
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGTERM)
    assert await gateway.process.wait() == 0
    assert gateway.envoys() == []
    await gateway.start()


async def _take_over(gateway: Rig, snapshot: Snapshot) -> None:
    async with serve_gateways(gateway.address) as link:
        await until(lambda: link.live)
        assert await link.wait_acknowledged(link.push(snapshot), 20) == ()
        await until(lambda: "a" in link.traffic() and link.traffic()["a"].healthy == 1)


async def test_a_refusal_is_told_in_envoys_words(tmp_path: Path) -> None:
    """What was good goes on, and a port that becomes free is taken after all."""
    async with rig(tmp_path) as gateway:
        replica = await gateway.replica("r")
        good = gateway.snapshot(agent("a", replica))
        await gateway.push(good)
        taken = free_port()
        holder = await asyncio.start_server(lambda *_: None, "127.0.0.1", taken, reuse_port=True)
        bad = replace(good, internal_port=taken)
        version = gateway.link.push(bad)
        await until(lambda: gateway.link.refusals)
        assert await gateway.link.wait_acknowledged(version, 0.1) == ("one",)
        assert "Address already in use" in gateway.link.refusals["one"]
        assert await serves(gateway)
        holder.close()
        await holder.wait_closed()
        await until(lambda: not gateway.link.refusals)
        assert await gateway.link.wait_acknowledged(version, 20) == ()


async def test_what_envoy_can_not_use_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with rig(tmp_path) as gateway:
        replica = await gateway.replica("r")
        await gateway.push(gateway.snapshot(agent("a", replica)))
        named = replace(agent("a", replica), endpoints=(replace(replica.endpoint, host="localhost"),))
        version = gateway.link.push(gateway.snapshot(named))
        await until(lambda: gateway.link.refusals)
        assert await gateway.link.wait_acknowledged(version, 0.1) == ("one",)
        assert "expected an IP address" in gateway.link.refusals["one"]
        assert await serves(gateway)
        await gateway.push(gateway.snapshot(agent("a", replica)))


async def test_a_long_directory_works(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 20) / ("path" * 10)
    deep.mkdir(parents=True)
    async with rig(deep) as gateway:
        await gateway.push(gateway.snapshot(agent("a", await gateway.replica("r"))))
        assert await serves(gateway)


async def test_sigterm_lets_requests_finish(tmp_path: Path) -> None:
    async with rig(tmp_path, "--drain", "10") as gateway:
        replica = await gateway.replica("slow")
        release = asyncio.Event()

        async def wait(_: web.Request) -> web.StreamResponse:
            await release.wait()
            return web.Response(text="done")

        replica.answer = wait
        await gateway.push(gateway.snapshot(agent("a", replica)))
        async with asyncio.TaskGroup() as tasks:
            got = [tasks.create_task(gateway.get("/a/")) for _ in range(3)]
            await until(lambda: replica.active == 3)
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGTERM)
            await until(lambda: "drains" in gateway.log())
            release.set()
        assert [task.result().text for task in got] == ["done"] * 3
        assert await gateway.process.wait() == 0
        assert gateway.envoys() == []


async def test_nothing_is_lost_with_a_snapshot_that_was_refused(tmp_path: Path) -> None:
    """The next change is one of what was sent, not of what could be used."""
    async with rig(tmp_path) as gateway:
        replica = await gateway.replica("r")
        bad = replace(agent("a", replica), endpoints=(replace(replica.endpoint, host="localhost"),))
        snapshot = gateway.snapshot(bad, agent("b", replica))
        version = gateway.link.push(snapshot)
        await until(lambda: gateway.link.refusals)
        assert await gateway.link.wait_acknowledged(version, 0.1) == ("one",)
        await gateway.push(replace(snapshot, agents={**snapshot.agents, "a": agent("a", replica)}))
        assert await serves(gateway, "/a/")
        assert await serves(gateway, "/b/")
