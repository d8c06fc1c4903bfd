"""What was stored is prepared beside the passes: brokers and gateways that take their time hold up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import pytest

from shoal.control.controller import LOOK_APART_S
from shoal.control.loading import WAIT_S
from shoal.core.wiring import Wiring
from shoal.errors import BrokerError
from shoal.spec.model import Fleet, Queue
from tests.simulation.virtual_time import run_virtually
from tests.unit.control.drive import Drive, Queues, driving

_LASTS_S = 20.0
WEB = {"command": "serve", "port": 80, "scale": {"min": 1, "max": 9}}
WITH_QUEUE = {"queues": {"q": {}}, "brokers": {"main": {"type": "embedded"}}}
WORKER = {"command": "work", "queue": "q", "scale": {"min": 1, "max": 9}}


class Lost(Queues):
    """A broker that is away for who would make queues, too."""

    lost = False

    async def ensure(self, queues: Mapping[str, Queue]) -> None:
        if self.lost:
            raise BrokerError("the broker does not answer")
        await super().ensure(queues)


def with_a_broker(drive: Drive) -> Lost:
    drive.queues = lost = Lost(lambda: drive.now)
    return lost


async def take_over(drive: Drive) -> None:
    drive.controller = drive.new_controller()
    await drive.controller.take_over()


async def test_who_takes_over_goes_on_without_the_broker() -> None:
    """It is told, and the queues are made once it is back; who looks before then is not told that all is done."""
    async with driving() as drive:
        broker = with_a_broker(drive)
        await drive.up({"web": WEB, "w": WORKER}, **WITH_QUEUE)
        await drive.go(5, until=lambda: drive.controller.settled)
        broker.lost, broker.ensured = True, {}
        await take_over(drive)
        with pytest.raises(BrokerError):  # the watcher takes it up and tries again; this is in its place
            await drive.go(1)
        drive.controller.pin("web", 3)
        for _ in range(5):
            drive.now += 0.5
            drive.engine.tick()
            drive.controller.look()
            await drive.controller.run_pass()
        assert len(drive.state("web").observed.replicas) == 3 and not drive.controller.settled
        broker.lost = False
        await drive.go(5, until=lambda: drive.controller.settled)
        assert list(broker.ensured) == ["q"]


async def test_a_fleet_that_begins_waits_for_its_broker() -> None:
    """No worker is started that would find no queue."""
    async with driving() as drive:
        broker = with_a_broker(drive)
        broker.lost = True
        await drive.up({"w": WORKER}, **WITH_QUEUE)
        await drive.go(5)
        assert drive.controller.problems == {"load": "the broker does not answer"} and drive.engine.acted == []
        broker.lost = False
        await drive.go(5, until=lambda: drive.controller.settled)
        assert drive.controller.problems == {} and len(drive.state("w").observed.replicas) == 1


async def test_a_change_that_the_broker_refuses_leaves_what_is_in_force() -> None:
    async with driving() as drive:
        broker = with_a_broker(drive)
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        broker.lost = True
        await drive.up({"web": WEB, "w": WORKER}, **WITH_QUEUE)
        await drive.go(3)
        assert list(drive.controller.states) == ["web"] and not drive.controller.settled
        assert drive.controller.problems == {"load": "the broker does not answer"}


def test_what_is_in_force_is_scaled_while_the_next_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass waits a moment for it, the next ones do not."""

    async def run() -> None:
        async with driving() as drive:
            await drive.up({"web": WEB})
            await drive.go(5, until=lambda: drive.controller.settled)
            may, ensure = asyncio.Event(), drive.platform.ensure

            async def ensure_slowly(fleet: Fleet) -> Wiring:
                await may.wait()
                return await ensure(fleet)

            monkeypatch.setattr(drive.platform, "ensure", ensure_slowly)
            await drive.up({"web": WEB, "next": {**WEB, "port": 81}})
            took: list[float] = []
            for _ in range(2):
                began = asyncio.get_running_loop().time()
                await drive.controller.run_pass()
                took.append(asyncio.get_running_loop().time() - began)
            assert took == pytest.approx([WAIT_S, 0.0])
            drive.controller.pin("web", 4)
            await drive.go(3, until=lambda: len(drive.state("web").observed.replicas) == 4)
            assert list(drive.controller.states) == ["web"] and not drive.controller.settled
            may.set()
            await drive.go(5, until=lambda: drive.controller.settled)
            assert len(drive.state("next").observed.replicas) == 1

    run_virtually(run())


def test_what_is_stored_while_another_is_prepared_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with driving() as drive:
            may, ensure = asyncio.Event(), drive.platform.ensure
            asked: list[list[str]] = []

            async def ensure_slowly(fleet: Fleet) -> Wiring:
                asked.append(list(fleet.agents))
                await may.wait()
                return await ensure(fleet)

            monkeypatch.setattr(drive.platform, "ensure", ensure_slowly)
            await drive.up({"web": WEB})
            await drive.go(1)
            await drive.up({"stock": WEB})
            await drive.go(1)
            assert asked == [["web"]]
            may.set()
            await drive.go(9, until=lambda: drive.controller.settled and "web" not in drive.controller.states)
            assert asked == [["web"], ["stock"]] and len(drive.state("stock").observed.replicas) == 1

    run_virtually(run())


def test_who_waits_for_the_first_load_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done before it is known what is wanted: no agent is a reason for a pass."""

    async def run() -> None:
        async with driving() as drive:
            await drive.up({"web": WEB})
            await drive.go(5, until=lambda: drive.controller.settled)
            drive.controller = drive.new_controller()

            async def ensure_never(fleet: Fleet) -> Wiring:
                await asyncio.Event().wait()
                raise AssertionError(fleet)

            monkeypatch.setattr(drive.platform, "ensure", ensure_never)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LASTS_S):
                    await drive.controller.run()
            assert list(drive.controller.states) == ["web"]
            assert sum(drive.controller.tally.passes) <= _LASTS_S / LOOK_APART_S

    run_virtually(run())


async def test_a_broker_that_is_away_hides_no_other() -> None:
    """Whose queues are made and read meanwhile."""
    async with driving() as drive:
        brokers = {"main": {"type": "embedded"}, "far": {"type": "rabbitmq", "url": "amqp://far"}}
        agents = {"w": WORKER, "v": {**WORKER, "queue": "r"}}
        queues = {"q": {"broker": "main"}, "r": {"broker": "far"}}
        fleet = Fleet.model_validate({"fleet": "f", "agents": agents, "queues": queues, "brokers": brokers})
        with pytest.raises(BrokerError, match="amqp://far can't be used here"):
            await drive.controller.queues.take(fleet, "nats://h", {})
        drive.queues.depths = {"q": 7.0}
        assert list(drive.queues.ensured) == ["q"] and drive.controller.queues.behind
        assert {name: reading.value for name, reading in (await drive.controller.queues.read()).readings.items()} == {
            "q": 7.0
        }
