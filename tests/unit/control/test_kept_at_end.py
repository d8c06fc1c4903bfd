"""What is known of a fleet's agents over `down` and `up`: the count that a person set, and which versions served."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from shoal.cli.local.place import LocalPlace
from shoal.control.history import REVISIONS_KEPT
from shoal.control.memory_store import MemoryStore
from shoal.control.store import keep_at_end
from shoal.core.decision import Pin
from shoal.core.record import AgentRecord
from shoal.core.rollout import Rollout, RolloutPhase
from tests.unit.control.drive import START, Drive, driving

WORKER = {"command": "work", "queue": "q", "scale": {"min": 0, "max": 3, "target": {"queue_depth": 1}}}
WEB = {"command": "serve", "port": 80}
FLEET: Mapping[str, Mapping[str, object]] = {"worker": WORKER, "web": WEB}


async def down(drive: Drive, *, data: bool = False) -> None:
    await drive.controller.shut_down(data=data)
    await drive.go(10, until=lambda: not drive.controller.states)


async def take_over(drive: Drive) -> None:
    """By the controller that the next `up` starts."""
    drive.controller = drive.new_controller()
    await drive.controller.take_over()


@pytest.mark.parametrize("another", [True, False], ids=["another controller", "the same controller"])
async def test_a_pin_holds_over_down_and_up(another: bool) -> None:
    """Tasks that wait for a worker that a person stopped wait on, and nothing of it is started for a moment."""
    async with driving() as drive:
        await drive.up(FLEET)
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.controller.pin("worker", 0)
        drive.queues.depths["q"] = 40.0
        await drive.go(3)
        await down(drive)
        kept = drive.store.kept.records
        assert {name: record.pin for name, record in kept.items()} == {"worker": Pin(0, None), "web": None}
        if another:
            await take_over(drive)
        await drive.up(FLEET)
        await drive.go(10)
        assert drive.controller.settled and drive.state("worker").record.pin == Pin(0, None)
        assert (
            not any("worker" in said for said in drive.said("started")) and not drive.state("worker").observed.replicas
        )
        drive.controller.pin("worker", None)
        await drive.go(5, until=lambda: len(drive.state("worker").observed.replicas) == 3)


@pytest.mark.parametrize("without", ["down", "up"])
async def test_a_pin_goes_with_its_agent(without: str) -> None:
    """Whether it left the file before the fleet went down, or while it was."""
    async with driving() as drive:
        await drive.up(FLEET)
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.controller.pin("worker", 2)
        await drive.go(2)
        if without == "down":
            await drive.up({"web": WEB})
            await drive.go(2, until=lambda: drive.state("worker").spec is None)
            await drive.controller.shut_down(data=False)  # while it still drains
            await drive.go(10, until=lambda: not drive.controller.states)
            assert set(drive.store.kept.records) == {"web"}
        else:
            await down(drive)
            await drive.up({"web": WEB})
            await drive.go(5, until=lambda: drive.controller.settled)
            assert set(drive.store.kept.records) == {"web"}
        await drive.up(FLEET)
        await drive.go(5)
        assert drive.state("worker").record.pin is None


async def test_a_pin_goes_with_the_data() -> None:
    """`down --volumes` leaves no count that a person set, also where an earlier `down` had kept it."""
    async with driving() as drive:
        await drive.up(FLEET)
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.controller.pin("worker", 0)
        await drive.go(1)
        await drive.controller.shut_down(data=False)
        await drive.go(0.1)
        await down(drive, data=True)
        assert [record.pin for record in drive.store.kept.records.values()] == [None, None]


async def test_what_served_is_known_over_down_and_up() -> None:
    """Also who never did, and nothing of what ran."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        first = drive.state("web").revision
        await drive.up({"web": {**WEB, "command": "serve2"}})
        await drive.go(20, until=lambda: drive.controller.settled)
        second = drive.state("web").revision
        await down(drive)
        assert drive.store.kept.records == {"web": AgentRecord(served=(second, first))}
        await take_over(drive)
        await drive.up({"web": {**WEB, "command": "serve3"}})
        await drive.go(0.2)
        assert drive.state("web").record.known_to_serve == {first, second}
        await drive.go(20, until=lambda: drive.controller.settled)
        assert drive.state("web").record.served == (drive.state("web").revision, second, first)


async def test_what_is_kept_of_a_record() -> None:
    """What says that something runs, or since when, is not."""
    going_on = Rollout("c", "b", 3, START, START, phase=RolloutPhase.PROGRESSING)
    record = AgentRecord(
        desired=3, pin=Pin(3, None), last_fire_at=1.0, schedule="x", rollout=going_on, started=True, held_since=1.0,
        served=("a",),
    )  # fmt: skip
    assert record.kept_at_end == AgentRecord(pin=Pin(3, None), served=("b", "a"))
    assert AgentRecord(desired=3, started=True, rollout=Rollout("c", None, 1, START, START)).kept_at_end is None
    most = AgentRecord(rollout=going_on, served=tuple(f"r{number}" for number in range(REVISIONS_KEPT)))
    assert most.kept_at_end is not None and len(most.kept_at_end.served) == REVISIONS_KEPT


async def test_records_of_a_fleet_that_ended_without_its_controller() -> None:
    """They say no more than those that a controller leaves."""
    store = MemoryStore()
    running = AgentRecord(desired=3, pin=Pin(3, None), started=True, served=("a",))
    await store.write({"web": running, "job": AgentRecord(last_fire_at=1.0, schedule="x")}, ())
    await keep_at_end(store, pins=True)
    assert await store.read_records() == {"web": AgentRecord(pin=Pin(3, None), served=("a",))}
    await keep_at_end(store, pins=False)
    assert await store.read_records() == {"web": AgentRecord(served=("a",))}


async def test_down_volumes_of_a_fleet_that_is_down_forgets_its_pins(tmp_path: Path) -> None:
    """On one machine the state stays, and no controller is started for it where nothing else is left."""
    place = LocalPlace(tmp_path, "f")
    async with place.store(make=True) as store:
        await store.write({"web": AgentRecord(pin=Pin(3, None), served=("a",))}, ())
    await place.tidy(data=False)
    async with place.store() as store:
        assert (await store.read_records())["web"].pin == Pin(3, None)
    await place.tidy(data=True)
    async with place.store() as store:
        assert await store.read_records() == {"web": AgentRecord(served=("a",))}
