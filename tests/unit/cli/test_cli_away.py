"""`shoal events` and `shoal explain` while no controller answers: what it wrote down is there all the same."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from shoal.cli.local.place import LocalPlace
from shoal.cli.stored_fleet import write_stored
from shoal.control.agent_state import Event
from shoal.control.event_file import EVENTS_FILE, EventFile
from shoal.control.sqlite_store import open_store
from shoal.core.decision import Decision
from shoal.core.record import AgentRecord
from shoal.spec.model import Fleet
from tests.unit.cli.conftest import Run


def test_events_are_read_from_disk(directory: Path, run: Run) -> None:
    """It says so, and refuses what only a controller can do."""
    assert run("events").code == 1
    directory.mkdir(parents=True)
    EventFile(directory / EVENTS_FILE).extend(
        [Event(1.0, "web", "crashed", "web-1: exit code 1"), Event(2e9, None, "problem", "disk full")]
    )
    done = run("events")
    assert done.code == 0
    assert [line.split()[2:4] for line in done.out.splitlines()] == [["web", "crashed"], ["-", "problem"]]
    assert "no controller answers" in done.err
    assert json.loads(run("events", "-o", "json", "--since", "2020-01-01T00:00").out)["message"] == "disk full"
    assert run("events", "-f").code == 1


def test_decisions_are_read_from_the_store(directory: Path, run: Run) -> None:
    """The newest first, as many as were asked for."""
    assert run("explain", "web").code == 1
    fleet = Fleet.model_validate({"fleet": "warehouse", "agents": {"web": {"command": "x", "port": 1}}})

    async def store_decisions() -> None:
        await write_stored(LocalPlace(directory, "warehouse"), fleet, "/", 0)
        async with open_store(directory / "state.db") as store:
            made = [Decision("web", 10.0 + count, 1, count, f"because {count}") for count in (2, 3)]
            await store.write({"web": AgentRecord(desired=3)}, made)

    asyncio.run(store_decisions())
    done = run("explain", "web")
    assert done.code == 0
    assert done.out.index("because 3") < done.out.index("because 2")
    assert "no controller answers" in done.err
    assert len(json.loads(run("explain", "web", "-n", "1", "-o", "json").out)["decisions"]) == 1
    assert "no agent 'wev' in this fleet; did you mean 'web'?" in run("explain", "wev").err
