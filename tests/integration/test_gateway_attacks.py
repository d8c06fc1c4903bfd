"""Clients that mean harm, against a real Envoy: nothing is smuggled past it, and it goes on to serve the others."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from aiohttp import web
from gateway_rig import Rig, agent, free_port, rig, until
from raw_http import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    literal,
    open_h2,
    request_block,
    statuses,
    talk,
)

from shoal.core.routing import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = b"Host: x\r\n"
POST = b"POST /a/ HTTP/1.1\r\n" + HOST
GET = b"GET /a/ HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
INNER = b"GET /a/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
EMPTY_CHUNKS = b"\r\n0\r\n\r\n"


@dataclass
class Target:
    """A gateway with one agent, and what that agent was asked."""

    rig: Rig
    envoy: psutil.Process
    asked: list[str] = field(default_factory=list[str])
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        if request.path == "/slow":
            await self.release.wait()
        with suppress(ConnectionError):
            await request.read()
        return await self.rig_replica.echo(request)

    async def has_taken_all(self) -> None:
        """Until nothing more comes: the agent is this process, and what it still takes is not Envoy's delay."""
        seen = -1
        async with asyncio.timeout(30):
            while seen != (seen := len(self.asked)):
                await asyncio.sleep(0.5)

    async def serves_others(self) -> None:
        """The same Envoy, at once. The agent is this process, which may itself be late: one of three tells."""
        took = [await self.asks()]
        while min(took) >= 2.0 and len(took) < 3:
            took.append(await self.asks())
        assert min(took) < 2.0, took
        assert [process.pid for process in self.rig.envoys()] == [self.envoy.pid]

    async def asks(self) -> float:
        began = time.monotonic()
        assert (await self.rig.get("/a/others")).status == 200
        return time.monotonic() - began

    async def setup(self) -> None:
        self.rig_replica = await self.rig.replica("r")
        self.rig_replica.answer = self.answer
        await self.rig.push(self.rig.snapshot(agent("a", self.rig_replica)))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Target]:
    async with rig(tmp_path_factory.mktemp("attacks")) as gateway:
        await until(gateway.envoys)
        made = Target(gateway, gateway.envoys()[0])
        await made.setup()
        yield made
        made.release.set()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(POST + b"Content-Length: 6\r\n" + CHUNKED + EMPTY_CHUNKS + INNER, 400, id="length and chunks"),
        pytest.param(POST + CHUNKED + b"Content-Length: 6\r\n" + EMPTY_CHUNKS + INNER, 400, id="chunks and length"),
        pytest.param(POST + b"Transfer-Encoding: xchunked\r\n" + EMPTY_CHUNKS + INNER, 501, id="unknown coding"),
        pytest.param(POST + CHUNKED + b"Transfer-Encoding: x\r\n" + EMPTY_CHUNKS + INNER, 501, id="two codings"),
        pytest.param(
            POST + b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n" + EMPTY_CHUNKS + INNER,
            400,
            id="space, colon",
        ),
        pytest.param(
            POST + b"Content-Length: 5\r\nTransfer-Encoding: \x0bchunked\r\n" + EMPTY_CHUNKS + INNER, 400, id="tab"
        ),
        pytest.param(POST + b"Content-Length: 0\r\nContent-Length: 37\r\n\r\n" + INNER, 400, id="two lengths"),
        pytest.param(POST + b"Content-Length: 0, 37\r\n\r\n" + INNER, 400, id="list of lengths"),
        pytest.param(POST + b"Content-Length: +0\r\n\r\n" + INNER, 400, id="signed length"),
        pytest.param(POST + b"Content-Length: -1\r\n\r\n" + INNER, 400, id="negative length"),
        pytest.param(POST + b"Content-Length: 99999999999999999999\r\n\r\n" + INNER, 400, id="endless length"),
        pytest.param(POST + CHUNKED + b"\r\n0x1\r\nx" + EMPTY_CHUNKS + INNER, 400, id="chunk in hex prefix"),
        pytest.param(POST + CHUNKED + b"\r\nfffffffffffffffff1\r\nx" + EMPTY_CHUNKS + INNER, 400, id="endless chunk"),
        pytest.param(POST + CHUNKED + b"\r\n1;\nx" + EMPTY_CHUNKS + INNER, 400, id="bare line feed in a chunk"),
        pytest.param(POST + CHUNKED + b"\r\n1\r\nxx0\r\n\r\n" + INNER, 400, id="chunk longer than it says"),
        pytest.param(GET + b"X: a\0b\r\n\r\n" + INNER, 400, id="zero in a value"),
        pytest.param(GET + b"X\0: a\r\n\r\n" + INNER, 400, id="zero in a name"),
        pytest.param(b"GET /a/\0 HTTP/1.1\r\n" + HOST + b"\r\n" + INNER, 400, id="zero in the path"),
        pytest.param(b"GET /a/%00 HTTP/1.1\r\n" + HOST + b"\r\n" + INNER, 400, id="escaped zero in the path"),
        pytest.param(b"GET /a/ HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n" + INNER, 400, id="folded first header"),
        pytest.param(GET + b"X : a\r\n\r\n" + INNER, 400, id="space before the colon"),
        pytest.param(b"GET /a/ x HTTP/1.1\r\n" + HOST + b"\r\n" + INNER, 400, id="space in the path"),
        pytest.param(b"GET /a/ HTTP/1.1\r\n\r\n" + INNER, 400, id="no host"),
        pytest.param(b"GET /a/\r\n\r\n", 426, id="HTTP/0.9"),
        pytest.param(b"GET /a/ HTTP/1.0\r\n" + HOST + b"\r\n", 426, id="HTTP/1.0"),
        pytest.param(b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HOST + b"\r\n", 404, id="tunnel"),
        pytest.param(GET + b"Connection: X-Forwarded-For\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n", 400, id="hop by hop"),
        pytest.param(GET + b"X: " + b"x" * 62_000 + b"\r\n\r\n" + INNER, 431, id="62 KB of headers"),
        pytest.param(GET + b"".join(b"x%d: a\r\n" % i for i in range(100)) + b"\r\n" + INNER, 431, id="101 headers"),
        pytest.param(b"GET /a/" + b"x" * 62_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431, id="long path"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, 400, id="TLS"),
        pytest.param(bytes(range(256)) * 20, 400, id="anything"),
    ],
)
async def test_what_is_not_http_is_refused_and_its_rest_never_read(target: Target, data: bytes, status: int) -> None:
    """One answer, the connection ends, and no second request comes of what followed."""
    target.asked.clear()
    assert statuses(await talk(target.rig.port, data)) == [status]
    assert "/smuggled" not in target.asked
    await target.serves_others()


@pytest.mark.parametrize(
    ("data", "header", "value"),
    [
        pytest.param(GET + b"X: a\r\n b\r\n\r\n", "x", "a b", id="folded"),
        pytest.param(GET + b"X: a\rY: b\r\n\r\n", "x", "aY: b", id="bare carriage return"),
        pytest.param(b"GET /a/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "host", "x,y", id="two hosts"),
        pytest.param(GET + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "upgrade", None, id="upgrade to HTTP/2"),
        pytest.param(
            POST + b"Content-Length: 0\r\nTransfer_Encoding: chunked\r\n\r\n", "transfer_encoding", None, id="_"
        ),
    ],
)
async def test_what_is_let_in_is_written_anew(target: Target, data: bytes, header: str, value: str | None) -> None:
    """The agent reads one meaning only: what its own parser might take otherwise is not in what it gets."""
    answer = await talk(target.rig.port, data)
    assert statuses(answer) == [200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["headers"].get(header) == value


async def test_nobody_sends_what_only_the_gateway_says(target: Target) -> None:
    """Headers by which it tells agents of a request, or is itself steered, are dropped; its own address is added to
    those that the client claims."""
    forged = b"X-Shoal-Caller: root\r\nX-Envoy-Original-Path: /z\r\nX-Envoy-Anything: 1\r\nX_Shoal_Caller: root\r\n"
    claims = b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /z\r\n"
    answer = await talk(target.rig.port, GET + forged + claims + b"\r\n")
    seen = json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]
    assert not {"x-shoal-caller", "x-envoy-anything", "x_shoal_caller"} & set(seen)
    assert seen.get("x-envoy-original-path", "/a/") == "/a/"
    assert (seen["x-forwarded-proto"], seen["x-forwarded-prefix"]) == ("http", "/a")
    claimed, _, added = seen["x-forwarded-for"].rpartition(",")
    assert (claimed, bool(added)) == ("6.6.6.6", True)


async def test_paths_are_made_plain_before_they_are_routed(target: Target) -> None:
    """What leads to one agent can't be read as another's by that agent."""
    for path in (b"/a/../b/", b"/a/%2e%2e/b/", b"/a/..\\b/"):
        target.asked.clear()
        assert statuses(await talk(target.rig.port, b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")) == [404]
        assert target.asked == []


def _resets(count: int) -> list[bytes]:
    """Requests that are taken back at once."""
    block = request_block(b"/a/slow")
    return [
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, block) + frame(RST_STREAM, 0, 2 * i + 1, b"\0\0\0\x08")
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(_resets(10_000), id="rapid reset"),
        pytest.param([frame(PING, 0, 0, b"12345678")] * 100_000, id="pings"),
        pytest.param([frame(SETTINGS, 0, 0)] * 100_000, id="settings"),
        pytest.param([frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01")] * 50_000, id="window updates"),
        pytest.param(
            [frame(HEADERS, 0, 1, request_block(b"/a/"))]
            + [frame(CONTINUATION, 0, 1, literal(b"x%d" % i, b"y" * 8_000)) for i in range(2_000)],
            id="endless headers",
        ),
        pytest.param(
            [frame(HEADERS, 0, 1, request_block(b"/a/"))] + [frame(CONTINUATION, 0, 1)] * 100_000,
            id="headers without end",
        ),
        pytest.param(
            [frame(HEADERS, END_HEADERS, 1, request_block(b"/a/", method=b"POST"))] + [frame(DATA, 0, 1)] * 50_000,
            id="empty data",
        ),
        pytest.param([b"\xff" * 20_000], id="no frames"),
    ],
)
async def test_floods_of_frames_end_their_connection(target: Target, frames: list[bytes]) -> None:
    """While nobody reads the answers: neither the memory nor the others' time is spent on it."""
    target.asked.clear()
    before = target.envoy.memory_info().rss
    connection = await open_h2(target.rig.port)
    for at in range(0, len(frames), 500):
        if not await connection.send(*frames[at : at + 500]):
            break
        if at % 5_000 == 0:
            await target.serves_others()
    if "/slow" in target.asked:
        await target.has_taken_all()
    await target.serves_others()
    await connection.frames(0.5)
    connection.writer.close()
    assert target.envoy.memory_info().rss - before < 64 << 20


async def test_a_small_block_can_not_become_large_headers(target: Target) -> None:
    """One 4 KB entry of the compressor's table, meant 10,000 times."""
    target.asked.clear()
    bomb = b"\x40" + literal(b"x", b"z" * 3_900)[1:] + b"\xbe" * 10_000
    connection = await open_h2(target.rig.port)
    await connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, request_block(b"/a/bomb") + bomb))
    answers = await connection.frames(20.0, until=RST_STREAM)
    connection.writer.close()
    assert RST_STREAM in {kind for kind, *_ in answers}
    await target.serves_others()
    assert "/bomb" not in target.asked


@pytest.mark.parametrize(
    "header",
    [
        pytest.param((b"x", b"a\r\ny: b"), id="line end in a value"),
        pytest.param((b"x\ny", b"1"), id="line end in a name"),
        pytest.param((b"x: y", b"1"), id="colon in a name"),
        pytest.param((b"x", b"a\0b"), id="zero"),
        pytest.param((b"transfer-encoding", b"chunked"), id="chunks"),
        pytest.param((b"connection", b"close"), id="connection"),
        pytest.param((b"content-length", b"5"), id="length without a body"),
        pytest.param((b":path", b"/a/smuggled"), id="second path"),
        pytest.param((b"", b"x"), id="no name"),
    ],
)
async def test_what_http1_would_read_otherwise_does_not_get_there(target: Target, header: tuple[bytes, bytes]) -> None:
    target.asked.clear()
    connection = await open_h2(target.rig.port)
    await connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, request_block(b"/a/down", header)))
    answers = await connection.frames(0.3)
    connection.writer.close()
    assert HEADERS not in {kind for kind, *_ in answers}
    await target.serves_others()
    assert set(target.asked) == {"/others"}


async def test_streams_of_one_connection_are_limited(target: Target) -> None:
    """Of 1,500 at once no more than 1,000 reach an agent."""
    target.asked.clear()
    target.release.clear()
    connection = await open_h2(target.rig.port)
    block = request_block(b"/a/slow")
    await connection.send(*(frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, block) for i in range(1_500)))
    try:
        await connection.frames(1.0)
        await target.has_taken_all()
        await target.serves_others()
        assert 0 < target.asked.count("/slow") <= 1_000
    finally:
        connection.writer.close()
        target.release.set()


async def test_who_is_slow_with_his_headers_is_cut_off(target: Target) -> None:
    """After ten seconds, and meanwhile he is in nobody's way."""
    began = time.monotonic()
    slow = [await asyncio.open_connection("127.0.0.1", target.rig.port) for _ in range(200)]
    for _, writer in slow:
        writer.write(b"GET /a/ HTTP/1.1\r\nHost: x\r\n")
    await asyncio.sleep(5.0)
    for _, writer in slow:
        writer.write(b"X: a\r\n")
    await target.serves_others()
    async with asyncio.timeout(15.0):
        answers = [await reader.read() for reader, _ in slow]
    assert {status for answer in answers for status in statuses(answer)} == {408}
    assert 9.0 < time.monotonic() - began < 15.0
    for _, writer in slow:
        writer.close()


async def test_bodies_wait_with_the_client(target: Target) -> None:
    """200 clients send 4 MB each to an agent that does not read: a bounded part of it lies in Envoy."""
    target.release.clear()
    before = target.envoy.memory_info().rss
    writers: list[asyncio.StreamWriter] = []
    for _ in range(200):
        _, writer = await asyncio.open_connection("127.0.0.1", target.rig.port)
        writer.write(b"POST /a/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n" + b"x" * (4 << 20))
        writers.append(writer)
    await asyncio.sleep(1.0)
    await target.serves_others()
    grown = target.envoy.memory_info().rss - before
    for writer in writers:
        writer.transport.abort()
    target.release.set()
    assert grown < 300 << 20, f"{grown >> 20} MB"


async def test_a_flood_of_connections_leaves_the_agents_their_own(tmp_path: Path) -> None:
    """Clients above the limit are turned away; agents go on calling each other, and the gateway process sees its Envoy.
    Once the flood is over, clients are served again."""
    async with rig(tmp_path, "--connections", "30") as gateway:
        replica = await gateway.replica("r")
        port = free_port()
        caller = Caller("b", may_call=("a",), listener_port=port)
        await gateway.push(gateway.snapshot(agent("a", replica), callers={"b": caller}))
        flood = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(200)]
        ended = 0
        for reader, _ in flood:
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(0.05):
                    ended += await reader.read(1) == b""
        assert ended >= 170
        for _ in range(10):
            assert (await gateway.get("/a/", port=port)).status == 200
        assert await gateway.healthy("a") == {"a": 1}
        for _, writer in flood:
            writer.close()

        async def serves() -> bool:
            with suppress(OSError):
                return statuses(await talk(gateway.port, GET + b"Connection: close\r\n\r\n", answer_s=2.0)) == [200]
            return False

        end = time.monotonic() + 5
        while not await serves():
            assert time.monotonic() < end


async def test_requests_that_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """At its limit Envoy refuses new ones, instead of being killed by the system, and serves when it has room again."""
    async with rig(tmp_path, "--heap-mb", "64") as gateway:
        replica = await gateway.replica("r")
        release = asyncio.Event()

        async def wait(request: web.Request) -> web.StreamResponse:
            if request.path == "/slow":
                await release.wait()
            return web.Response()

        replica.answer = wait
        await gateway.push(gateway.snapshot(agent("a", replica)))
        (envoy,) = gateway.envoys()
        held: list[asyncio.StreamWriter] = []
        refused = False
        while not refused and len(held) < 3_000:
            for _ in range(50):
                _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                writer.write(b"GET /a/slow HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 50_000 + b"\r\n\r\n")
                held.append(writer)
            got = await gateway.get("/a/")
            refused = got.status == 503 and "overload" in got.text
        assert refused, f"{len(held)} requests, {envoy.memory_info().rss >> 20} MB"
        for writer in held:
            writer.transport.abort()
        release.set()
        end = time.monotonic() + 10
        while (await gateway.get("/a/")).status != 200:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        assert [process.pid for process in gateway.envoys()] == [envoy.pid]


async def test_what_the_gateway_makes_is_for_its_user_alone(target: Target) -> None:
    """Sockets, files and directories; and its Envoy listens on loopback only, its admin interface on no port at all."""
    state = target.rig.directory / "gateway"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for path in state.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    sockets = {path.name for path in state.iterdir() if path.is_socket()}
    assert sockets == {"admin.sock", "gateway.sock"}
    listening = {
        (each.laddr.ip, each.laddr.port) for each in target.envoy.net_connections("tcp") if each.status == "LISTEN"
    }
    assert listening == {("127.0.0.1", target.rig.port)}
