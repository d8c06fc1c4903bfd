"""The load generator against real sockets: on time, once each, and every end of a request told apart."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

# The example and the load generator are imported from the repository, not from an installed package.
from bench.load import Bounds, Generator, Request, Target, read_outcomes

BOUNDS = Bounds()
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Target]:
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield Target(host, port)


async def outcomes_of(target: Target, requests: list[Request], bounds: Bounds = BOUNDS) -> dict[str, str]:
    out = io.StringIO()
    await Generator(target, bounds, out).run(requests)
    return {line["id"]: line["outcome"] for line in map(json.loads, out.getvalue().splitlines()[1:])}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What is asked for by the path: a status, a reset, or silence."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            what = head.split()[1].decode().strip("/")
            if what == "reset":
                return
            if what == "silent":
                await reader.read()
                return
            writer.write(f"HTTP/1.1 {what} X\r\ncontent-length: 2\r\n\r\nhi".encode())
    except asyncio.IncompleteReadError:
        return
    finally:
        writer.close()


async def test_each_request_has_an_outcome() -> None:
    """Answers by status, broken connections, silence and a closed port are told apart."""
    async with serving(answer) as target:
        requests = [Request(path, 0.0, path=f"/{path}") for path in ("200", "404", "503", "reset", "silent")]
        found = await outcomes_of(target, requests, Bounds(timeout_s=2.0))
    assert found == {"200": "ok", "404": "http-404", "503": "http-503", "reset": "reset", "silent": "timeout"}
    assert await outcomes_of(target, [Request("x", 0.0)]) == {"x": "refused"}


async def test_each_request_is_sent_once() -> None:
    """A connection that breaks is an outcome, not a reason to send again."""
    seen: list[bytes] = []

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with serving(break_off) as target:
        assert await outcomes_of(target, [Request("a", 0.0), Request("b", 0.0)]) == {"a": "reset", "b": "reset"}
    assert len(seen) == 2


async def test_slow_answers_do_not_hold_back_what_follows() -> None:
    """Open loop: while one answer is missing, the next request is sent and answered."""
    async with serving(answer) as target:
        requests = [Request("slow", 0.0, path="/silent"), Request("next", 0.01, path="/200")]
        assert await outcomes_of(target, requests, Bounds(timeout_s=2.0)) == {"next": "ok", "slow": "timeout"}


async def test_bounds_hold() -> None:
    """What is too many at once, or too many in all, is not sent and says so; time cuts off the rest."""
    async with serving(answer) as target:
        silent = [Request(f"{n}", 0.0, path="/silent") for n in range(3)]
        found = await outcomes_of(target, silent, Bounds(in_flight=2, timeout_s=0.2))
        assert sorted(found.values()) == ["not-sent", "timeout", "timeout"]
        quick = [Request(f"{n}", 0.0, path="/200") for n in range(3)]
        assert (await outcomes_of(target, quick, Bounds(requests=2)))["2"] == "not-sent"
        late = [Request("now", 0.0, path="/silent"), Request("never", 99.0)]
        assert await outcomes_of(target, late, Bounds(seconds=0.2)) == {"now": "timeout"}


async def test_outcomes_on_disk_can_be_read_while_they_grow(tmp_path: Path) -> None:
    """A line that is not whole yet is left for later; an empty file is told."""
    path = tmp_path / "o.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="no outcomes yet"):
        read_outcomes(path)
    async with serving(answer) as target:
        with path.open("w") as out:
            await Generator(target, Bounds(), out).run([Request("a", 0.0, path="/200")])
    with path.open("a") as out:
        out.write('{"id": "b", "at')
    started_at, outcomes = read_outcomes(path)
    assert started_at > 0
    assert [(each.id, each.outcome, each.status) for each in outcomes] == [("a", "ok", 200)]
