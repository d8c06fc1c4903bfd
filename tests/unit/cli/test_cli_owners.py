"""Whose a count is, in words: `status`, `explain` and `plan` say it, and what makes it Shoal's again."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import click
import pytest

from shoal.api.client import Client
from shoal.api.views import OwnerView, StatusView
from shoal.cli.count_owners import describe_owners
from shoal.cli.explain import render_explanation
from shoal.cli.status_text import render_agent
from shoal.core.record import AgentRecord
from shoal.errors import ControllerUnavailable
from tests.unit.cli.fake_controller import INGEST, NOW, STATUS

BY_HAND = OwnerView("kubectl", NOW - 60, delegated=False, lasting=False)
THEIRS = OwnerView("ScaledObject web", NOW - 60, delegated=False, lasting=True)
HANDED = OwnerView("HPA ingest (autoscaling/v2)", NOW - 60, delegated=True, lasting=True, trouble="NoMetrics: none")


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        (BY_HAND, "kubectl: 2, seen 1m ago; Shoal keeps off until it is taken back (`shoal scale ingest auto`, or"),
        (THEIRS, "ScaledObject web: 2 for 1m; Shoal keeps off until it is taken back (remove ScaledObject web)"),
        (HANDED, "HPA ingest (autoscaling/v2): 2 for 1m; it can't tell how many there should be: NoMetrics: none"),
    ],
)
def test_who_has_it_and_how_it_is_taken_back(owner: OwnerView, said: str) -> None:
    """In the agent's status and in its explanation; what was handed over is not to be taken back."""
    agent = replace(INGEST, owner=owner)
    for text in (render_agent(agent, NOW), render_explanation(agent, (), NOW)):
        assert said in click.unstyle(text)
    assert ("keeps off" in render_agent(agent, NOW)) is not owner.delegated
    assert "count:" not in click.unstyle(render_agent(INGEST, NOW))


class Controller:
    """One that answers, or is away."""

    def __init__(self, view: StatusView | None) -> None:
        self.view, self.asked = view, 0

    async def status(self) -> StatusView:
        self.asked += 1
        if self.view is None:
            raise ControllerUnavailable("away")
        return self.view


async def noted(controller: Controller, **held_since: float | None) -> tuple[str, ...]:
    records = {name: AgentRecord(held_since=since) for name, since in held_since.items()}
    return await describe_owners(cast(Client, controller), records)


async def test_a_plan_notes_what_is_left_alone() -> None:
    """Not what was handed over; the controller is asked only where there is something."""
    others = tuple(each for each in STATUS.agents if each.name != "ingest")
    there = Controller(replace(STATUS, agents=(replace(INGEST, owner=BY_HAND), *others)))
    (note,) = await noted(there, ingest=NOW)
    assert note.startswith("ingest: its count is set by kubectl: 2, seen")
    assert await noted(Controller(replace(STATUS, agents=(replace(INGEST, owner=HANDED),))), ingest=NOW) == ()
    assert await noted(Controller(None), ingest=NOW) == ()
    quiet = Controller(STATUS)
    assert (await noted(quiet, ingest=None), quiet.asked) == ((), 0)
