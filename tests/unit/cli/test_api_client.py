"""The client gives back the views that the controller sent, and its errors as the classes that they were."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from shoal.api.client import Client, socket_path
from shoal.api.decode import decode
from shoal.api.lines import check_socket_directory
from shoal.api.views import StatusView
from shoal.errors import Conflict, ControllerUnavailable, NotFound, ShoalError
from tests.unit.cli.fake_controller import FakeController


@pytest.fixture
def client(fake: FakeController, directory: Path) -> Client:
    return Client(socket_path(directory))


async def test_views_come_back_as_they_were(client: Client, fake: FakeController) -> None:
    """What the server filled is what the client reads, nested values included."""
    assert await client.status() == fake.status
    async with aclosing(client.watch()) as views:
        assert [view async for view in views] == fake.watched
    assert (await client.explain("ingest", last=3))[0] == fake.status.agents[1].decision
    async with aclosing(client.events(5.0)) as events:
        assert [event async for event in events] == fake.events
    async with aclosing(client.logs(["ingest"], tail=3)) as lines:
        assert [line async for line in lines] == fake.logs[:1]
    assert await client.queues() == tuple(fake.queues)
    assert await client.tasks("image_tasks", dead=True) == tuple(fake.tasks)
    assert ("tasks", {"dead": "1", "limit": "10"}) in fake.calls
    assert ("logs", [("agent", "ingest"), ("follow", "0"), ("tail", "3")]) in fake.calls


async def test_changes_carry_what_was_asked(client: Client, fake: FakeController) -> None:
    """Every route that changes something sends the body that `views` names."""
    assert (await client.scale("ingest", 4, 60.0)).pin == 4
    assert await client.run("forecasting") == "forecasting-1"
    assert await client.purge("image_tasks", dead=True) == 40
    assert await client.redrive("image_tasks", ["17"]) == 3
    assert await client.apply() == 3
    await client.down(volumes=True)
    assert fake.calls == [
        ("scale", {"agent": "ingest", "count": 4, "for_s": 60.0}),
        ("run", {"agent": "forecasting"}),
        ("purge", {"dead": True}),
        ("redrive", {"ids": ["17"]}),
        ("apply", {}),
        ("down", {"volumes": True}),
    ]


async def test_errors_keep_their_class(client: Client) -> None:
    """An error crosses the socket as its class and message."""
    with pytest.raises(NotFound, match="no agent 'nobody'"):
        await client.explain("nobody")
    with pytest.raises(Conflict, match="somebody else"):
        await client.scale("busy", 1)


async def test_without_a_controller_it_says_what_to_do(tmp_path: Path) -> None:
    """No socket, and a socket that nobody listens on, are the same to a person."""
    with pytest.raises(ControllerUnavailable, match="shoal up"):
        await Client(tmp_path / "controller.sock").status()
    with pytest.raises(ControllerUnavailable, match="shoal up"):
        await Client(tmp_path / "absent" / "controller.sock").status()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{]",
    ],
)
async def test_a_broken_answer_is_no_fault_of_ours(tmp_path: Path, answer: bytes) -> None:
    """A controller that dies in the middle is an error that a person can act on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "s"):
        with pytest.raises(ControllerUnavailable, match="went away"):
            await Client(tmp_path / "s").status()


async def test_an_answer_of_another_version(tmp_path: Path) -> None:
    """Keys that are not known are passed over; those that are missed are told."""
    fields = {"name": "a", "kind": "job", "revision": "r", "state": "ok", "reason": "", "desired": 1, "ready": 0}
    with pytest.raises(ValueError, match="no StatusView"):
        decode(StatusView, {"fleet": "x", "agents": [fields], "novelty": 1})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"fleet": "x", "novelty": 1}')
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "s"):
        with pytest.raises(ShoalError, match="does not fit this version"):
            await Client(tmp_path / "s").status()


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    """The kernel allows a socket some 104 bytes; the short path is the same each time and another for another fleet."""
    assert socket_path(Path("/var/shoal")) == Path("/var/shoal/controller.sock")
    long = Path("/") / ("x" * 120)
    assert len(bytes(socket_path(long))) <= 100
    assert socket_path(long) == socket_path(long) != socket_path(long / "y")


def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    """A path under /tmp could be anybody's: a link there is not followed."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ControllerUnavailable, match="does not belong to you"):
        check_socket_directory(tmp_path / "link" / "s.sock")
