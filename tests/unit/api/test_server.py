"""The API on a controller of values: who is served, for how long, and at what price."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from shoal.api import status_lines
from shoal.api.client import Client
from shoal.api.queue_admins import QueueAdmins
from shoal.api.server import LOG_TAIL_LINES, serve_api
from shoal.api.status_lines import StatusLines
from shoal.engines.protocol import LogLine
from shoal.errors import ControllerUnavailable
from tests.unit.control.drive import Drive, driving

WEB = {"command": "serve", "port": 80, "scale": {"min": 2, "max": 4}}
PATIENCE_S = 30


@asynccontextmanager
async def serving(drive: Drive, directory: Path) -> AsyncIterator[Client]:
    """A client of a drive's controller."""
    socket = directory / "s" / "controller.sock"
    async with serve_api(drive.controller, socket, QueueAdmins(drive.controller, "f", str)):
        yield Client(socket)


async def test_a_reader_who_leaves_is_served_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows logs for somebody ends when he closes."""
    reading, ended = asyncio.Event(), asyncio.Event()

    async def logs(*agents: str, **_: object) -> AsyncIterator[LogLine]:
        try:
            yield LogLine("web-0", agents[0], "one")
            reading.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with driving() as drive, serving(drive, tmp_path) as client:
        await drive.up({"web": WEB})
        await drive.go()
        monkeypatch.setattr(drive.engine, "logs", logs)
        async with asyncio.timeout(PATIENCE_S):
            async with aclosing(client.logs(["web"], follow=True)) as lines:
                assert (await anext(lines)).text == "one"
                await reading.wait()
            await ended.wait()


async def test_a_change_is_finished_though_its_reader_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for `down` and leaves has asked for it."""
    asked, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def shut_down(*, data: bool) -> None:
        asked.set()
        await go_on.wait()
        done.set()

    async with driving() as drive, serving(drive, tmp_path) as client:
        monkeypatch.setattr(drive.controller, "shut_down", shut_down)
        async with asyncio.timeout(PATIENCE_S):
            async with asyncio.TaskGroup() as tasks:
                call = tasks.create_task(client.down())
                await asked.wait()
                call.cancel()
            await client.status()  # the server has seen by now that he left
            assert call.cancelled()
            go_on.set()
            await done.wait()
        assert done.is_set()


async def test_logs_without_a_tail_are_the_last_thousand_of_an_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless somebody asks for more, by a number or a time."""
    tails: list[object] = []

    async def logs(*agents: str, tail: int | None = None, **_: object) -> AsyncIterator[LogLine]:
        tails.append(tail)
        yield LogLine("web-0", agents[0], "one")

    async with driving() as drive, serving(drive, tmp_path) as client:
        await drive.up({"web": WEB})
        await drive.go()
        monkeypatch.setattr(drive.engine, "logs", logs)
        for since, tail in ((None, None), (5.0, None), (None, 5000)):
            assert [line.text async for line in client.logs(since=since, tail=tail)] == ["one"]
        assert tails == [LOG_TAIL_LINES, None, 5000]


async def test_only_agents_that_changed_are_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status costs what changed, and says what is."""
    async with driving() as drive:
        await drive.up({"web": WEB, "other": WEB})
        await drive.go()
        rendered: list[str] = []
        real = status_lines.agent_view

        def agent_view(state: status_lines.AgentState, url: str | None, *, loaded: bool) -> object:
            rendered.append(state.name)
            return real(state, url, loaded=loaded)

        monkeypatch.setattr(status_lines, "agent_view", agent_view)
        lines = StatusLines(drive.controller)
        first = json.loads(lines.render())
        assert [agent["name"] for agent in first["agents"]] == ["other", "web"] == sorted(rendered)
        assert first["agents"][0]["replicas"][0]["phase"] == "running"
        rendered.clear()
        assert json.loads(lines.render())["agents"] == first["agents"]
        assert rendered == []
        drive.controller.pin("web", 3)
        await drive.controller.run_pass()
        assert {agent["name"]: agent["desired"] for agent in json.loads(lines.render())["agents"]}["web"] == 3
        assert rendered == ["web"]


async def test_who_may_not_act_takes_no_orders(tmp_path: Path) -> None:
    """He tells what he sees, and that it is not settled."""
    async with driving() as drive, serving(drive, tmp_path) as client:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.has_right = False
        for order in (client.scale("web", 3), client.run("web"), client.apply(), client.down()):
            with pytest.raises(ControllerUnavailable, match="another one may act; try again in some seconds"):
                await order
        assert drive.state("web").record.pin is None
        status = await client.status()
        assert [agent.ready for agent in status.agents] == [2] and not status.settled


async def test_who_has_taken_a_fleet_down_takes_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While gateway and broker end it answers still, but would not look at what is stored by then."""
    ended: list[bool] = []
    async with driving() as drive, serving(drive, tmp_path) as client:

        async def remove(*, data: bool) -> None:
            with pytest.raises(ControllerUnavailable, match="has taken the fleet down, and ends"):
                await client.apply()
            ended.append(data)

        monkeypatch.setattr(drive.platform, "remove", remove)
        await drive.controller.shut_down(data=False)
        await drive.controller.run()
    assert ended == [False]


async def test_watchers_share_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten who watch cost what one costs."""
    made = 0
    real = StatusLines.render

    def render(self: StatusLines) -> bytes:
        nonlocal made
        made += 1
        return real(self)

    monkeypatch.setattr(StatusLines, "render", render)
    async with driving() as drive, serving(drive, tmp_path) as client:

        async def watch() -> None:
            async with aclosing(client.watch()) as views:
                for _ in range(3):
                    await anext(views)

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(watch())
        assert made <= 5


async def test_the_pause_is_ten_times_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that watching never takes more than a tenth of the controller's time."""
    async with driving() as drive:
        lines = StatusLines(drive.controller)
        instants = iter((10.0, 10.3))
        monkeypatch.setattr("shoal.api.status_lines.time.perf_counter", lambda: next(instants))
        assert lines.pause_s == pytest.approx(0.2)
        lines.render()
        assert lines.pause_s == pytest.approx(3.0)
