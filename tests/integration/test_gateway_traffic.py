"""What happens to a request on its way through a real Envoy."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from aiohttp import ClientSession, TCPConnector, WSMsgType, web
from gateway_rig import DEADLINE_S, Got, Rig, agent, free_port, rig, until

from shoal.core.routing import AgentRoute, Caller, Endpoint, HealthCheck

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Rig]:
    async with rig(tmp_path_factory.mktemp("traffic")) as made:
        yield made


def seen(got: Got) -> dict[str, object]:
    assert got.status == 200, got
    return json.loads(got.text)


async def test_public_paths_and_hosts(gateway: Rig) -> None:
    """The longest path wins and is stripped unless told otherwise; a host has routes of its own; the rest is 404."""
    one, two, three, four = [await gateway.replica(name) for name in ("one", "two", "three", "four")]
    await gateway.push(
        gateway.snapshot(
            agent("one", one),
            agent("two", two, public_path="/one/deep"),
            agent("three", three, public_path=None, public_host="three.test"),
            agent("four", four, strip_path=False),
        )
    )
    assert seen(await gateway.get("/one/a/b?c=d"))["path"] == "/a/b?c=d"
    assert seen(await gateway.get("/one"))["path"] == "/"
    assert seen(await gateway.get("/one/"))["path"] == "/"
    deep = seen(await gateway.get("/one/deep/x"))
    assert (deep["replica"], deep["path"]) == ("two", "/x")
    assert deep["headers"]["x-forwarded-prefix"] == "/one/deep"  # pyright: ignore[reportIndexIssue]
    assert seen(await gateway.get("/one/deeper"))["replica"] == "one"
    by_host = await gateway.get("/any/thing", headers={"host": "three.test:8080"})
    assert (seen(by_host)["replica"], seen(by_host)["path"]) == ("three", "/any/thing")
    whole = seen(await gateway.get("/four/x", headers={"x-forwarded-prefix": "/forged"}))
    assert whole["path"] == "/four/x"
    assert "x-forwarded-prefix" not in whole["headers"]  # pyright: ignore[reportOperatorIssue]
    for path, headers in (("/", {}), ("/ones", {}), ("/one/x", {"host": "three.test"})):
        got = await gateway.get(path, headers=headers)
        if headers:
            assert seen(got)["path"] == "/one/x"  # the host's own
        else:
            assert (got.status, got.headers["content-type"]) == (404, "application/json")
            assert "error" in json.loads(got.text)


async def test_the_idlest_replica_is_chosen(gateway: Rig) -> None:
    busy, idle = await gateway.replica("busy"), await gateway.replica("idle")
    release = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(text="late")

    busy.answer = idle.answer = wait
    await gateway.push(gateway.snapshot(agent("a", busy, idle)))
    async with asyncio.TaskGroup() as tasks:
        for count in range(1, 101):
            tasks.create_task(gateway.get("/a/"))
            await until(lambda count=count: busy.active + idle.active == count)
            assert abs(busy.active - idle.active) <= 4  # the busier one is taken once in 32; by chance: once in two
        release.set()


async def test_only_what_is_idempotent_is_retried_on_503(gateway: Rig) -> None:
    good, bad = await gateway.replica("good"), await gateway.replica("bad")

    async def unavailable(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    bad.answer = unavailable
    await gateway.push(gateway.snapshot(agent("a", good, bad, retry_methods=("GET", "PUT"))))
    posts: list[int] = []
    while 503 not in posts:
        assert len(posts) < 40
        posts.append((await gateway.get("/a/", method="POST")).status)
    for method in ("GET", "PUT"):
        assert [(await gateway.get("/a/", method=method)).status for _ in range(10)] == [200] * 10


async def test_a_replica_that_refuses_connections_costs_no_request(gateway: Rig) -> None:
    """Any method may be sent elsewhere when its replica never saw it."""
    good, dead = await gateway.replica("good"), await gateway.replica("dead")
    await gateway.push(gateway.snapshot(agent("a", good, dead)))
    await dead.stop()
    assert [(await gateway.get("/a/", method="POST")).status for _ in range(20)] == [200] * 20


async def test_no_retry_clings_to_a_dead_replica_because_it_is_idle(gateway: Rig) -> None:
    """One replica is busy; the other is dead, and so the idlest, for the request and for each of its retries."""
    busy, dead = await gateway.replica("busy"), await gateway.replica("dead")
    release, agents = asyncio.Event(), [f"a{number}" for number in range(10)]  # each has an ejection of its own

    async def wait_if_asked(request: web.Request) -> web.StreamResponse:
        if "wait" in request.query:
            await release.wait()
        return web.Response(text="busy")

    busy.answer = dead.answer = wait_if_asked
    await gateway.push(gateway.snapshot(*(agent(name, busy, retry_methods=("GET",)) for name in agents)))
    async with asyncio.TaskGroup() as tasks:
        for name in agents:
            tasks.create_task(gateway.get(f"/{name}/?wait"))
        await until(lambda: busy.active == len(agents))
        await gateway.push(gateway.snapshot(*(agent(name, busy, dead, retry_methods=("GET",)) for name in agents)))
        await dead.stop()
        assert {name: (await gateway.get(f"/{name}/")).status for name in agents} == dict.fromkeys(agents, 200)
        release.set()


async def test_a_failing_replica_is_ejected(gateway: Rig) -> None:
    """By its fifth failure, though those that are on their way until Envoy has heard of it may fail too."""
    good, bad = await gateway.replica("good"), await gateway.replica("bad")

    async def fail(_: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    bad.answer = fail
    await gateway.push(gateway.snapshot(agent("a", good, bad)))
    last, end = 0, time.monotonic() + DEADLINE_S
    while (spared := good.hits - last) < 32:  # in a row: by chance once in 4 billion
        assert time.monotonic() < end, (bad.hits, spared)
        hits = bad.hits
        await gateway.get("/a/")
        last = last if bad.hits == hits else good.hits
    assert bad.hits >= 5


async def test_a_replica_that_fails_its_check_is_sent_nothing_unless_all_do(gateway: Rig) -> None:
    """A machine that is too busy makes all of them late at once, and late answers are better than refusals."""
    good, bad = await gateway.replica("good"), await gateway.replica("bad")
    await gateway.push(gateway.snapshot(agent("a", good, bad)))
    await until(lambda: gateway.traffic("a").healthy == 2)
    bad.healthy = False
    await until(lambda: gateway.traffic("a").healthy == 1)
    assert {str(seen(await gateway.get("/a/"))["replica"]) for _ in range(20)} == {"good"}
    good.healthy = False
    await until(lambda: gateway.traffic("a").healthy == 0)
    assert {str(seen(await gateway.get("/a/"))["replica"]) for _ in range(40)} == {"good", "bad"}
    good.healthy = True
    await until(lambda: gateway.traffic("a").healthy == 1)
    assert {str(seen(await gateway.get("/a/"))["replica"]) for _ in range(20)} == {"good"}


async def test_the_breaker_is_this_gateways_share(gateway: Rig) -> None:
    """Eight at a time for four gateways are two for this one; more get 503 at once, marked as such."""
    slow = await gateway.replica("slow")
    release = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    slow.answer = wait
    await gateway.push(gateway.snapshot(agent("a", slow, max_requests=8), gateways=4))
    async with asyncio.TaskGroup() as tasks:
        passed = [tasks.create_task(gateway.get("/a/")) for _ in range(2)]
        await until(lambda: slow.active == 2)
        refused = [await gateway.get("/a/") for _ in range(3)]
        release.set()
    assert [got.status for got in refused] == [503] * 3
    assert all("x-envoy-overloaded" in got.headers for got in refused)
    assert [task.result().status for task in passed] == [200] * 2


async def test_events_stream_as_they_come(gateway: Rig) -> None:
    replica = await gateway.replica("sse")
    follow = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await follow.wait()
        await response.write(b"data: two\n\n")
        return response

    replica.answer = stream
    await gateway.push(gateway.snapshot(agent("a", replica)))
    async with gateway.http.get(f"http://127.0.0.1:{gateway.port}/a/") as response:
        assert await response.content.readuntil(b"\n\n") == b"data: one\n\n"
        follow.set()
        assert await response.content.readuntil(b"\n\n") == b"data: two\n\n"


async def test_websockets_pass(gateway: Rig) -> None:
    replica = await gateway.replica("ws")

    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{request.path} {message.data}")
        return socket

    replica.answer = echo
    await gateway.push(gateway.snapshot(agent("a", replica)))
    async with gateway.http.ws_connect(f"ws://127.0.0.1:{gateway.port}/a/chat") as socket:
        await socket.send_str("hello")
        message = await socket.receive()
        assert (message.type, message.data) == (WSMsgType.TEXT, "/chat hello")


async def test_grpc_passes(gateway: Rig) -> None:
    """Streams both ways, over HTTP/2 in the clear, by the agent's public host."""

    async def upper(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.upper()

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(upper)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Upper", {"Do": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    route = AgentRoute(
        "a",
        "grpc",
        HealthCheck(None, 0.5, 2.0, 2),
        (Endpoint("r", "127.0.0.1", port),),
        public_host="a.test",
    )
    await gateway.push(gateway.snapshot(route))
    options = (("grpc.default_authority", "a.test"),)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=options) as channel:
            call = channel.stream_stream("/test.Upper/Do")()
            for word in (b"one", b"two"):
                await call.write(word)
                assert await call.read() == word.upper()
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
    finally:
        await server.stop(0)


@pytest.mark.parametrize("sticky", ["header", "cookie"])
async def test_a_key_stays_with_its_replica(gateway: Rig, sticky: str) -> None:
    """By a key that the client has; the gateway mints none."""
    replicas = [await gateway.replica(name) for name in "xyz"]
    more = {"sticky_header": "x-user"} if sticky == "header" else {"sticky_cookie": "user"}
    await gateway.push(gateway.snapshot(agent("a", *replicas, **more)))

    async def who(key: str) -> object:
        headers = {"x-user": key} if sticky == "header" else {"cookie": f"user={key}"}
        got = await gateway.get("/a/", headers=headers)
        assert "set-cookie" not in got.headers
        return seen(got)["replica"]

    chosen = {key: await who(key) for key in map(str, range(12))}
    assert len(set(chosen.values())) > 1
    assert {key: await who(key) for key in chosen} == chosen


async def test_clients_steer_nothing(gateway: Rig) -> None:
    """No header of a client turns retries on, none is smuggled past, no path climbs out of its agent."""
    one, two = await gateway.replica("one"), await gateway.replica("two")
    await gateway.push(gateway.snapshot(agent("one", one), agent("two", two)))
    headers = {"x-envoy-retry-on": "5xx", "x_user": "root", "x-envoy-upstream-rq-timeout-ms": "1"}
    got = seen(await gateway.get("/one/", headers=headers))["headers"]
    assert isinstance(got, dict)
    assert not {"x-envoy-retry-on", "x_user", "x-envoy-upstream-rq-timeout-ms"} & set(got)

    async def raw(request: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request.replace("\n", "\r\n").encode())
        answer = await reader.readline()
        writer.close()
        return answer.decode().split(" ", 1)[1].strip()

    climbing = "GET /one/%2e%2e/two/x HTTP/1.1\nhost: x\n\n"
    assert (await raw(climbing)).startswith("200")
    assert (one.hits, two.hits) == (1, 1)  # it is an ordinary request to the other agent
    both = "POST /one/ HTTP/1.1\nhost: x\ncontent-length: 3\ntransfer-encoding: chunked\n\n0\n\n"
    assert (await raw(both)).startswith("400")
    many = "".join(f"h{number}: x\n" for number in range(150))
    assert (await raw(f"GET /one/ HTTP/1.1\nhost: x\n{many}\n")).startswith("431")


async def test_traffic_is_counted(gateway: Rig) -> None:
    """Requests, failures, those active and the latencies come up within about two seconds."""
    replica = await gateway.replica("counted")
    release = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/wait":
            await release.wait()
        return web.Response(status=500 if request.path == "/fail" else 200)

    replica.answer = answer
    await gateway.push(gateway.snapshot(agent("counted", replica)))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            await gateway.get("/counted/")
        await gateway.get("/counted/fail")
        tasks.create_task(gateway.get("/counted/wait"))
        await until(lambda: gateway.traffic("counted").active == 1)
        release.set()
    await until(lambda: gateway.traffic("counted").requests == 5)
    await until(lambda: gateway.traffic("counted").latency_counts[-1:] == (5,))
    counts = gateway.traffic("counted")
    assert (counts.failures, counts.active, counts.healthy) == (1, 0, 1)
    assert list(counts.latency_counts) == sorted(counts.latency_counts)


async def test_calls_by_own_listener(gateway: Rig) -> None:
    """The path's first part, or the authority, names the callee; what is not declared is 403, what is missing 503."""
    b = await gateway.replica("b")
    port = free_port()
    callers = {"a": Caller("a", ("b", "later"), listener_port=port)}
    await gateway.push(gateway.snapshot(agent("b", b, public_path=None), agent("c", public_path=None), callers=callers))
    assert seen(await gateway.get("/b/x/y?z=1", port=port))["path"] == "/x/y?z=1"
    assert seen(await gateway.get("/x", port=port, headers={"host": f"b:{port}"}))["path"] == "/x"
    assert (await gateway.get("/c/x", port=port)).status == 403
    assert (await gateway.get("/b/../c/x", port=port)).status == 403
    assert (await gateway.get("/later/x", port=port)).status == 503
    assert (await gateway.get("/b/x")).status == 404  # not public


async def test_calls_by_source_address(gateway: Rig) -> None:
    """One listener for all: an address that is not known gets 503, and a new one is in force once acknowledged."""
    b = await gateway.replica("b")
    port = free_port()
    callers = {
        "a": Caller("a", ("b",), addresses=("127.0.0.2", "127.0.0.3")),
        "c": Caller("c", (), None, ("127.0.0.4",)),
    }
    snapshot = gateway.snapshot(agent("b", b, public_path=None), callers=callers, internal_port=port)
    await gateway.push(snapshot)

    async def call(source: str) -> int:
        connector = TCPConnector(local_addr=(source, 0))
        headers = {"x-shoal-source": "127.0.0.2"}  # a client may say what it likes
        url = f"http://127.0.0.1:{port}/b/x"
        async with ClientSession(connector=connector, headers=headers) as http, http.get(url) as got:
            assert "x-shoal-source" not in await got.text()
            return got.status

    addresses = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
    assert await asyncio.gather(*map(call, addresses)) == [503, 200, 200, 403]
    await gateway.push(replace(snapshot, callers={"a": Caller("a", ("b",), None, ("127.0.0.1",))}))
    assert await asyncio.gather(*map(call, addresses)) == [200, 503, 503, 503]


async def test_who_calls_before_he_is_known_waits_for_that(gateway: Rig) -> None:
    """With the body, upgrades and trailers of what he asks; the callee sees no trace of it, and who may call what is
    as ever."""
    b = await gateway.replica("b")
    port = free_port()
    before = gateway.snapshot(agent("b", b, public_path=None), callers={}, internal_port=port)
    await gateway.push(before)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/socket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str((await socket.receive()).data[::-1])
            await socket.close()
            return socket
        body = await request.text()
        return web.json_response({"body": body, "headers": {k.lower(): v for k, v in request.headers.items()}})

    b.answer = answer
    url = f"http://127.0.0.1:{port}"
    async with asyncio.TaskGroup() as tasks:
        sent = {"x-shoal-again": "127.0.0.9", "x-shoal-source": "127.0.0.9", "x-mine": "1"}
        asked = tasks.create_task(gateway.get("/b/", port=port, method="POST", data="x" * 100_000, headers=sent))
        upgraded = tasks.create_task(_reversed_by(gateway, f"{url}/b/socket"))
        refused = tasks.create_task(gateway.get("/c/", port=port))
        await asyncio.sleep(0.3)
        assert (b.hits, asked.done(), upgraded.done(), refused.done()) == (0, False, False, False)
        await gateway.push(replace(before, callers={"a": Caller("a", ("b",), addresses=("127.0.0.1",))}))
    known = await gateway.get("/b/", port=port, method="POST", data="x" * 100_000, headers=sent)
    assert len(json.loads(known.text)["body"]) == 100_000
    assert json.loads(asked.result().text) == json.loads(known.text)
    assert "x-shoal-unknown" not in asked.result().headers
    assert upgraded.result() == "olleh"
    assert refused.result().status == 403


async def _reversed_by(gateway: Rig, url: str) -> str:
    async with gateway.http.ws_connect(url) as socket:
        await socket.send_str("hello")
        return (await socket.receive()).data
