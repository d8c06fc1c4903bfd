"""The gateway's side of the line outlives whatever ends the line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import grpc.aio
import pytest

from shoal.core.routing import Traffic
from shoal.proxy import uplink as uplink_module
from shoal.proxy.codec import Delta
from shoal.proxy.link import serve_gateways
from shoal.proxy.uplink import Uplink
from shoal.proxy.wire import Report


class Busy:
    """Has something new to report whenever it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = 0  # so many of the next questions fail
        self.wake: Callable[[], None] = lambda: None

    def receive(self, delta: Delta) -> None: ...

    def connected(self, connected: bool) -> None: ...

    def status(self) -> Report:
        self.asked += 1
        if self.broken:
            self.broken -= 1
            raise RuntimeError
        self.wake()
        return Report(traffic={"a": Traffic(requests=self.asked)})


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink_module, "_BACK_OFF_S", (0.0, 0.0))


def busy_uplink(address: str) -> tuple[Busy, Uplink]:
    busy = Busy()
    uplink = Uplink(address, "one", busy)
    busy.wake = uplink.wake
    return busy, uplink


async def test_controllers_that_end_in_the_middle_of_a_report_do_not_end_it(tmp_path: Path) -> None:
    """A write on a stream that has just ended is an error of its own kind; it connects to the next controller."""
    address = f"unix:{tmp_path}/link.sock"
    busy, uplink = busy_uplink(address)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(uplink.run())
        for _ in range(40):
            async with serve_gateways(address) as link:
                await until(lambda link=link: link.live)
                enough = busy.asked + 20
                await until(lambda enough=enough: busy.asked >= enough)
        assert not running.done()
        running.cancel()
    assert busy.asked >= 40 * 20


class Ending:
    """A channel to a controller that ends: the stream's last read and a report fail in the same turn of the loop."""

    def __init__(self) -> None:
        self.streams = 0
        self._writes = 0

    async def __aenter__(self) -> Ending:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def stream_stream(self, _path: str) -> Callable[[], Ending]:
        return self._begin

    def _begin(self) -> Ending:
        self.streams += 1
        self._writes = 0
        return self

    async def write(self, _message: bytes) -> None:
        self._writes += 1
        if self._writes > 1:
            raise asyncio.InvalidStateError("RPC already finished.")

    async def read(self) -> object:
        await asyncio.sleep(0)
        return grpc.aio.EOF

    def cancel(self) -> None: ...


async def test_a_report_that_fails_as_the_stream_ends_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the task of the session is left behind as a cancelled one, though nobody cancelled it."""
    channel = Ending()
    monkeypatch.setattr(grpc.aio, "insecure_channel", lambda *_, **__: channel)
    _, uplink = busy_uplink("unix:/nowhere")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(uplink.run())
        await until(lambda: channel.streams > 2 or running.done())
        assert not running.done()
        running.cancel()


async def test_cancelled_while_a_report_fails_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task group drops a cancellation that comes beside an error of one of its tasks; this ends all the same."""
    channel = Ending()
    monkeypatch.setattr(grpc.aio, "insecure_channel", lambda *_, **__: channel)
    busy, uplink = busy_uplink("unix:/nowhere")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(uplink.run())

        def cancel() -> None:
            running.cancel()

        busy.wake = cancel  # as the report that fails is made
        await asyncio.wait([running], timeout=5)
        assert running.cancelled()


async def test_an_error_that_nobody_expects_is_logged_and_retried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"unix:{tmp_path}/link.sock"
    busy, uplink = busy_uplink(address)
    busy.broken = 3
    async with serve_gateways(address) as link, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(uplink.run())
        await until(lambda: not busy.broken and link.live and busy.asked > 10)
        running.cancel()
    assert "RuntimeError" in caplog.text
