"""The access log of a real Envoy, and what of it the agents get to see."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import time
from pathlib import Path
from typing import Any

from aiohttp import web
from gateway_rig import Rig, agent, free_port, rig, until

from shoal.core.routing import Caller
from shoal.proxy.access_log import AccessLog
from shoal.proxy.admin import Admin

TRACE_PARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


def parsed(text: str) -> list[dict[str, Any]]:
    """The whole lines: what follows the last line end is still being written."""
    return [json.loads(whole) for whole in text.split("\n")[:-1]]


async def line(gateway: Rig, request_id: str) -> dict[str, Any]:
    """That of one request; Envoy writes within a second or so."""
    path = gateway.directory / "gateway" / "access.log"
    end = time.monotonic() + 10
    while True:
        lines = parsed(path.read_text()) if path.exists() else []
        found = [each for each in lines if each["request_id"] == request_id]
        if found:
            assert len(found) == 1
            return found[0]
        assert time.monotonic() < end, lines
        await asyncio.sleep(0.05)


async def test_a_request_is_found_again_by_its_id_and_its_trace(tmp_path: Path) -> None:
    """What the client brings is passed on and logged; what it does not bring is made. Never the query."""
    async with rig(tmp_path) as gateway:
        replica = await gateway.replica("web-1")
        port = free_port()
        caller = Caller("b", may_call=("web",), listener_port=port)
        await gateway.push(gateway.snapshot(agent("web", replica), access_log=True, callers={"b": caller}))

        ours = {"x-request-id": 'mine"\\', "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
        seen = json.loads((await gateway.get("/web/x?token=secret", headers=ours)).text)["headers"]
        assert {name: seen[name] for name in ours} == ours
        logged = await line(gateway, 'mine"\\')
        assert (logged["agent"], logged["replica"], logged["listener"]) == ("web", "web-1", "public")
        assert (logged["method"], logged["path"], logged["status"]) == ("GET", "/web/x", 200)
        assert (logged["traceparent"], logged["flags"]) == (ours["traceparent"], "-")
        assert logged["duration_ms"] >= 0
        assert logged["bytes_sent"] > 100

        made = [
            json.loads((await gateway.get("/web/", method="POST", data=b"12345", port=port)).text)["headers"]
            if index == 0
            else json.loads((await gateway.get("/web/y")).text)["headers"]
            for index in range(20)
        ]
        assert all(TRACE_PARENT.fullmatch(each["traceparent"]) for each in made)
        assert len({each["traceparent"] for each in made}) == len({each["x-request-id"] for each in made}) == 20
        called = await line(gateway, made[0]["x-request-id"])
        assert (called["listener"], called["bytes_received"]) == ("caller-b", 5)
        assert called["traceparent"] == made[0]["traceparent"]
        path = tmp_path / "gateway" / "access.log"
        assert "secret" not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_failures_say_what_went_wrong(tmp_path: Path) -> None:
    """In Envoy's flags, for a replica that hangs up as for a path that leads nowhere."""
    async with rig(tmp_path) as gateway:
        replica = await gateway.replica("r")

        async def hang_up(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        replica.answer = hang_up
        await gateway.push(gateway.snapshot(agent("a", replica), access_log=True))
        await gateway.get("/a/", method="POST", headers={"x-request-id": "cut"})
        await gateway.get("/nowhere", headers={"x-request-id": "lost"})
        cut, lost = await line(gateway, "cut"), await line(gateway, "lost")
        assert (cut["status"], cut["flags"], cut["replica"]) == (503, "UC", "r")
        assert (lost["status"], lost["agent"]) == (404, None)


async def test_without_it_nothing_is_written_and_ids_pass(tmp_path: Path) -> None:
    async with rig(tmp_path) as gateway:
        await gateway.push(gateway.snapshot(agent("a", await gateway.replica("r"))))
        ours = {"x-request-id": "mine", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
        seen = json.loads((await gateway.get("/a/", headers=ours)).text)["headers"]
        assert {name: seen[name] for name in ours} == ours
        assert not (tmp_path / "gateway" / "access.log").exists()


async def test_it_is_rotated_without_losing_a_line(tmp_path: Path) -> None:
    async with rig(tmp_path) as gateway:
        await gateway.push(gateway.snapshot(agent("a", await gateway.replica("r")), access_log=True))
        path = tmp_path / "gateway" / "access.log"
        admin = Admin(tmp_path / "gateway" / "admin.sock")
        rotating = AccessLog(path, admin, most_bytes=2_000)
        sent = 0
        for _ in range(3):
            for _ in range(10):
                assert (await gateway.get("/a/", headers={"x-request-id": str(sent)})).status == 200
                sent += 1
            await until(lambda: path.exists() and path.stat().st_size > 2_000)
            assert rotating.rotate()
            await admin.get("/reopen_logs", method="POST")
        await until(path.exists)
        files = sorted(tmp_path.glob("gateway/access.log*"))
        assert [each.name for each in files] == ["access.log", "access.log.1", "access.log.2", "access.log.3"]

        def ids() -> list[str]:
            return [logged["request_id"] for each in files for logged in parsed(each.read_text())]

        await until(lambda: len(ids()) == sent)
        assert sorted(ids(), key=int) == [str(number) for number in range(sent)]
        admin.close()
