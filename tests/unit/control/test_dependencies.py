"""`depends_on` under the loop: the first start waits, nothing that was started does, and the end goes the other way."""

from __future__ import annotations

import pytest

from shoal.core.action import Scale
from shoal.core.observed import Phase
from shoal.core.rollout import RolloutPhase
from shoal.core.routing import Traffic
from shoal.engines.memory.behaviour import Behaviour
from tests.unit.control.drive import Drive, driving

STOCK = {"command": "keep", "port": 81}
WEB = {"command": "serve", "port": 80, "depends_on": ["stock"]}
FLEET = {"web": WEB, "stock": STOCK}  # the one that waits stands first: the order of the file is no order


def starts(drive: Drive) -> list[str]:
    """The agents in the order in which replicas were asked for."""
    return [action.agent for action in drive.engine.acted if isinstance(action, Scale) and action.count]


def living(drive: Drive, agent: str) -> int:
    return sum(replica.phase is not Phase.STOPPING for replica in drive.state(agent).observed.replicas)


async def test_the_first_start_waits_until_the_other_is_ready() -> None:
    """Not before the gateway finds it healthy; meanwhile the fleet is not settled, and says what it waits for."""
    async with driving() as drive:
        drive.unhealthy = {"stock-1"}
        await drive.up(FLEET)
        await drive.go(5)
        assert drive.state("stock").observed.replicas[0].ready and not living(drive, "web")
        assert drive.state("web").waiting_for == "waits for stock to be ready" and not drive.controller.settled
        assert drive.said("waiting") == ["waits for stock to be ready"]
        drive.unhealthy.clear()
        await drive.go(5, until=lambda: drive.controller.settled)
        assert starts(drive) == ["stock", "web"]


async def test_nobody_can_be_called_while_no_gateway_is_reached() -> None:
    """However ready he is; and the fleet is not settled."""
    async with driving() as drive:
        drive.engine.reachable = False
        await drive.up(FLEET)
        await drive.go(5)
        assert drive.state("stock").observed.replicas[0].ready and starts(drive) == ["stock"]
        assert not drive.controller.routed
        drive.engine.reachable = True
        await drive.go(5, until=lambda: drive.controller.settled)
        assert starts(drive) == ["stock", "web"] and drive.controller.routed


async def test_one_after_the_other_along_the_whole_way() -> None:
    """Each as soon as those before it are ready, within a pass or two."""
    async with driving() as drive:
        agents = {
            "a": {"command": "x", "queue": "q", "depends_on": ["b", "c"]}, "b": {**STOCK, "depends_on": ["c"]},
            "c": STOCK,
        }  # fmt: skip
        await drive.up(agents, queues={"q": {}}, brokers={"main": {}})
        await drive.go(4, until=lambda: drive.controller.settled)
        assert starts(drive) == ["c", "b", "a"]
        assert drive.said("waiting") == ["waits for c to be ready", "waits for b and c to be ready"]


async def test_what_was_started_is_not_held_up_any_more() -> None:
    """Though the other fails for good: it is not stopped, and scaled, changed and restarted as ever."""
    async with driving() as drive:
        await drive.up(FLEET)
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.engine.behave("stock", Behaviour(never_ready=True))
        drive.engine.crash("stock-1")
        await drive.go(3)
        assert living(drive, "web") == 1
        drive.controller.pin("web", 0)
        await drive.go(5, until=lambda: not drive.state("web").observed.replicas)
        drive.controller.pin("web", 2)
        await drive.go(5, until=lambda: sum(r.ready for r in drive.state("web").observed.replicas) == 2)
        await drive.up({**FLEET, "web": {**WEB, "environment": {"A": "2"}}})
        await drive.go(20, until=lambda: drive.state("web").settled)


async def test_a_new_controller_waits_no_second_time_and_no_less() -> None:
    """That it was started is durable, also while none of it runs; and one that waits goes on waiting."""
    async with driving() as drive:
        await drive.up({**FLEET, "late": {**WEB, "depends_on": ["never"]}, "never": STOCK})
        drive.engine.behave("never", Behaviour(never_ready=True))
        await drive.go(1)
        await drive.go(4, until=lambda: drive.state("web").settled)
        drive.controller.pin("web", 0)
        await drive.go(5, until=lambda: not drive.state("web").observed.replicas)
        records = await drive.store.read_records()
        assert records["web"].started and not records["late"].started
        drive.unhealthy = {"stock-1"}
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        drive.controller.apply()
        await drive.go(1)
        drive.controller.pin("web", 1)
        await drive.go(5, until=lambda: living(drive, "web") == 1)
        assert drive.state("late").waits_on == ("never",) and not living(drive, "late")


async def test_the_time_for_progress_begins_with_the_start() -> None:
    """A wait is no failure of who waits, however long it is."""
    async with driving() as drive:
        drive.engine.behave("stock", Behaviour(ready_s=60))
        agents = {
            "stock": {**STOCK, "update": {"progress_deadline": 90}}, "web": {**WEB, "update": {"progress_deadline": 5}},
        }  # fmt: skip
        await drive.up(agents)
        await drive.go(50)
        rollout = drive.state("web").record.rollout
        assert rollout is not None and rollout.phase is RolloutPhase.PROGRESSING
        await drive.go(20, until=lambda: drive.controller.settled)
        assert drive.said("rollout-failed") == []


async def test_one_that_sleeps_lets_others_start() -> None:
    """It wakes when it is needed; one that a person pinned to zero does not, until it is released."""
    async with driving() as drive:
        asleep = {**STOCK, "scale": {"min": 0, "max": 2, "target": {"concurrency": 10}}}
        await drive.up({"web": WEB, "stock": asleep})
        await drive.go(5, until=lambda: drive.controller.settled)
        assert starts(drive) == ["web"]
    async with driving() as drive:
        await drive.up({"stock": asleep})
        await drive.go(3, until=lambda: drive.controller.settled)
        drive.controller.pin("stock", 0)
        await drive.up({"web": WEB, "stock": asleep})
        await drive.go(5)
        assert drive.state("web").waits_on == ("stock",)
        drive.controller.pin("stock", None)
        await drive.go(5, until=lambda: drive.controller.settled)


async def test_one_that_is_woken_first_waits_and_its_requests_are_held() -> None:
    """A service at zero whose first request comes while the other is not ready."""
    async with driving() as drive:
        drive.unhealthy = {"stock-1"}
        asleep = {**WEB, "public": {"path": "/web"}, "scale": {"min": 0, "max": 2, "target": {"concurrency": 10}}}
        await drive.up({"web": asleep, "stock": STOCK})
        await drive.go(3)
        assert not drive.state("web").waits_on  # nobody needs it yet
        drive.load["web"] = Traffic(held=1)
        await drive.go(3)
        assert drive.state("web").waits_on and drive.route("web").hold and not living(drive, "web")
        drive.unhealthy.clear()
        await drive.go(5, until=lambda: len(drive.route("web").endpoints) == 1)


@pytest.mark.parametrize("whole", [True, False])
async def test_the_end_goes_the_other_way(whole: bool) -> None:
    """Who depends stops first, and may call until it has ended; so does who leaves the fleet by `up`."""
    async with driving() as drive:
        web = {**WEB, "calls": ["stock"]}
        other = {"other": STOCK}
        drive.engine.behave("web", Behaviour(stop_s=2))
        await drive.up({"web": web, "stock": STOCK, **other})
        await drive.go(5, until=lambda: drive.controller.settled)
        if whole:
            await drive.controller.shut_down(data=False)
        else:
            await drive.up(other)
        await drive.go(2, until=lambda: "web" in drive.controller.states and not living(drive, "web"))
        await drive.go(1)
        assert living(drive, "stock") == 1 and drive.route("stock").endpoints
        assert drive.state("stock").waiting_for == "waits for web to stop"
        drive.state("stock").due_at = drive.now  # something was, when it left
        await drive.go(0.2)
        assert drive.state("stock").due_at is None  # or the loop would go round and round until web has stopped
        assert drive.gateways.snapshot is not None and drive.gateways.snapshot.callers["web"].may_call == ("stock",)
        await drive.go(5, until=lambda: drive.controller.states.keys() == ({"other"} - ({"other"} if whole else set())))


async def test_who_waits_and_becomes_something_else() -> None:
    """A job waits for nobody any more; who leaves before its first start is gone at once."""
    async with driving() as drive:
        drive.unhealthy = {"stock-1"}
        await drive.up({**FLEET, "late": WEB})
        await drive.go(3)
        assert drive.state("web").waits_on and drive.state("late").waits_on
        await drive.up({"web": {"command": "x", "schedule": "0 0 1 1 *"}, "stock": STOCK})
        await drive.go(3)
        assert not drive.state("web").waits_on and "late" not in drive.controller.states


async def test_who_comes_back_starts_for_the_first_time() -> None:
    """An agent that left the fleet and ended is a new one."""
    async with driving() as drive:
        await drive.up(FLEET)
        await drive.go(5, until=lambda: drive.controller.settled)
        await drive.up({"stock": STOCK})
        await drive.go(5, until=lambda: "web" not in drive.controller.states)
        drive.unhealthy = {"stock-1"}
        await drive.go(1)
        await drive.up(FLEET)
        await drive.go(3)
        assert drive.state("web").waits_on == ("stock",) and not living(drive, "web")
