"""What the API says of an agent's health, and of a generation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoal.api.present import CRASHES_UNTIL_FAILED, agent_view, fleet_view
from shoal.core.observed import Phase
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
