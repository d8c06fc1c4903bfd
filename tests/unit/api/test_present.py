"""What the API says of an agent's health, and of a generation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from shoal.api.present import CRASHES_UNTIL_FAILED, agent_view, fleet_view
from shoal.api.status_lines import StatusLines
from shoal.core.observed import CountOwner, Phase
from tests.unit.control.drive import driving

WEB = {"command": "serve", "port": 80, "scale": {"min": 3, "max": 4}}


@pytest.mark.parametrize(("crashing", "state"), [(1, "degraded"), (3, "failed")])
async def test_an_agent_failed_when_none_of_its_newest_revision_is_ready(crashing: int, state: str) -> None:
    """One crash loop among replicas that serve is `degraded`."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go()
        web = drive.state("web")
        loops = [
            replace(each, phase=Phase.BACKOFF, ready=False, restarts=CRASHES_UNTIL_FAILED, reason="exit code 3")
            for each in web.observed.replicas[:crashing]
        ]
        web.observed = replace(web.observed, replicas=(*loops, *web.observed.replicas[crashing:]))
        view = agent_view(web, None)
        assert (view.state, "exit code 3" in view.reason) == (state, True)


async def test_a_generation_is_observed_once_it_is_taken_up() -> None:
    """Whether it is carried out, `settled` says: scaling makes no generation unseen."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go()
        drive.controller.pin("web", 4)
        view = fleet_view(drive.controller)
        assert (view.generation, view.observed_generation, view.settled) == (1, 1, False)


async def test_a_pin_to_zero_is_not_asleep() -> None:
    """No request wakes it, and it says so."""
    async with driving() as drive:
        await drive.up({"web": {**WEB, "scale": {"min": 0, "max": 4, "target": {"concurrency": 1}}}})
        await drive.go()
        assert agent_view(drive.state("web"), None).state == "asleep"
        drive.controller.pin("web", 0)
        await drive.go()
        view = agent_view(drive.state("web"), None)
        assert (view.state, view.reason) == ("ok", "pinned to 0 by hand: nothing wakes it")


async def test_a_pin_whose_time_is_over_is_shown_no_longer() -> None:
    """Its end is an event."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go()
        drive.controller.pin("web", 4, for_s=10.0)
        await drive.go(20.0)
        view = agent_view(drive.state("web"), None)
        assert (view.pin, view.pin_until) == (None, None)
        assert drive.said("released")[-1].endswith("to its targets: the time of the pin to 4 is over")


async def test_who_has_not_read_the_fleet_yet_says_of_no_agent_that_it_is_removed() -> None:
    """A controller that takes over knows the records before the fleet."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go()
        controller = drive.new_controller()
        await controller.take_over()
        (fleet,) = [json.loads(StatusLines(controller).render())]
        (web,) = fleet["agents"]
        assert (web["kind"], web["state"], web["desired"]) == ("unknown", "progressing", 3)
        assert "removed" not in web["reason"]
        assert not fleet["settled"]


async def test_whose_a_count_is() -> None:
    """With since when it is seen; set to zero by hand it is not asleep: nothing wakes it."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go()
        assert agent_view(drive.state("web"), None).owner is None
        drive.engine.set_count("web", drive.state("web").revision, 0, CountOwner("kubectl"))
        seen = drive.now
        await drive.go()
        view = agent_view(drive.state("web"), None)
        assert view.owner is not None and (view.owner.name, view.owner.lasting, view.owner.delegated) == (
            "kubectl", False, False,
        )  # fmt: skip
        assert view.owner.since == pytest.approx(seen, abs=0.2)
        assert (view.state, view.reason) == ("ok", "set by hand to 0 by kubectl: nothing wakes it")
