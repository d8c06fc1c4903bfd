"""One owner of a count, in the loop: an autoscaler of the engine's to which it is handed over, and people who set it in
the engine."""

from __future__ import annotations

import pytest

from shoal.core.action import Action, Autoscale, Scale
from shoal.core.observed import CountOwner
from shoal.engines.memory.behaviour import Behaviour
from shoal.errors import Conflict
from shoal.spec.scaling import Scale as Rules
from tests.unit.control.drive import Drive, driving

WEB = {"command": "serve", "port": 80, "resources": {"cpu": 1}, "scale": {"min": 2, "max": 6, "target": {"cpu": "50%"}}}
NATIVE = {"engine": "kubernetes", "kubernetes": {"autoscaler": "native"}}
KUBECTL = CountOwner("kubectl")
KEDA = CountOwner("ScaledObject web", lasting=True)


async def settle(drive: Drive) -> str:
    await drive.go(30, until=lambda: drive.controller.settled)
    return drive.state("web").revision


def of_counts(drive: Drive, since: int = 0) -> list[Action]:
    return [each for each in drive.engine.acted[since:] if isinstance(each, (Scale, Autoscale))]


async def test_the_engines_autoscaler_is_followed() -> None:
    """Handed over once at rest; from then on Shoal sets no count, and says what the other sets."""
    async with driving() as drive:
        await drive.up({"web": WEB}, **NATIVE)
        revision = await settle(drive)
        assert of_counts(drive)[-1] == Autoscale("web", revision, Rules.model_validate(WEB["scale"]))
        acted = len(drive.engine.acted)
        drive.engine.set_count("web", revision, 5, None)
        await drive.go(10, until=lambda: drive.controller.settled and len(drive.route("web").endpoints) == 5)
        assert drive.state("web").record.desired == 5 and not of_counts(drive, acted)
        assert drive.said("scaled")[-1] == "2 to 5: set to 5 by the autoscaler of web"
        assert drive.said("count") == ["is set by the autoscaler of web from now on"]


async def test_a_rollout_takes_the_count_back_and_hands_it_over_again() -> None:
    """The new version begins with as many as there were, nobody else sets a count meanwhile, and none is missing."""
    async with driving() as drive:
        await drive.up({"web": WEB}, **NATIVE)
        old = await settle(drive)
        drive.engine.set_count("web", old, 5, None)
        await settle(drive)
        await drive.go(10, until=lambda: len(drive.route("web").endpoints) == 5)
        acted = len(drive.engine.acted)
        drive.least_serving.clear()
        await drive.up({"web": {**WEB, "environment": {"A": "2"}}}, **NATIVE)
        new = await settle(drive)
        said = of_counts(drive, acted)
        assert said[0] == Autoscale("web")
        assert said[-1] == Autoscale("web", new, Rules.model_validate(WEB["scale"]))
        assert [type(each) for each in said[1:-1]] == [Scale] * (len(said) - 2)
        assert drive.state("web").observed.counts[new] == 5 and drive.least_serving["web"] == 5


async def test_a_version_that_is_given_up_leaves_the_autoscaler_to_the_one_before() -> None:
    """And where there is none before, nothing is handed over that never worked."""
    async with driving() as drive:
        drive.engine.behave("web", Behaviour(never_ready=True))
        broken = {**WEB, "update": {"progress_deadline": "5s"}}
        await drive.up({"web": broken}, **NATIVE)
        await drive.go(10, until=lambda: drive.said("rollout-failed") != [])
        await drive.go(5)
        assert not any(isinstance(each, Autoscale) for each in drive.engine.acted)
        drive.engine.mend(Behaviour())
        await drive.go(10, until=lambda: drive.state("web").observed.autoscaler is not None)
        serves = drive.state("web").revision
        drive.engine.behave("web", Behaviour(never_ready=True))
        await drive.up({"web": {**broken, "environment": {"A": "2"}}}, **NATIVE)
        await drive.go(30, until=lambda: len(drive.said("rollout-failed")) == 2)
        await drive.go(5)
        there = drive.state("web").observed.autoscaler
        assert there is not None and there.revision == serves
        assert drive.state("web").observed.counts[serves] == 2


async def test_a_pin_is_shoals_and_so_is_the_file_without_native() -> None:
    """The autoscaler is taken back for both, and for a pin handed the count again once that is released."""
    async with driving() as drive:
        await drive.up({"web": WEB}, **NATIVE)
        revision = await settle(drive)
        drive.controller.pin("web", 3)
        await drive.go(10, until=lambda: drive.controller.settled and len(drive.route("web").endpoints) == 3)
        assert drive.state("web").observed.autoscaler is None
        drive.controller.pin("web", None)
        await drive.go(10, until=lambda: drive.state("web").observed.autoscaler is not None)
        assert drive.state("web").observed.counts == {revision: 3}
        await drive.up({"web": WEB}, engine="kubernetes")
        await drive.go(10, until=lambda: drive.controller.settled)
        assert drive.state("web").observed.autoscaler is None


@pytest.mark.parametrize("count", [1, 9, 0])
async def test_a_count_set_by_hand_stays(count: int) -> None:
    """Beyond the bounds too, and over a restart of the controller, until a person takes it back."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        revision = await settle(drive)
        acted = len(drive.engine.acted)
        drive.engine.set_count("web", revision, count, KUBECTL)
        await drive.go(5)
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        drive.controller.apply()
        await drive.go(20)
        assert drive.state("web").observed.counts == {revision: count} and not of_counts(drive, acted)
        assert (drive.state("web").record.desired, drive.controller.settled) == (count, True)
        since = drive.state("web").record.held_since
        assert since is not None and since < drive.now - 20
        drive.controller.pin("web", None)
        await drive.go(400, until=lambda: drive.state("web").observed.counts[revision] in (2, 6))
        assert drive.state("web").observed.owners == {}


async def test_who_takes_over_the_same_count_sets_it() -> None:
    """Else it would be the other's again after a restart of the controller."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        revision = await settle(drive)
        drive.engine.set_count("web", revision, 2, KUBECTL)
        await drive.go(5)
        drive.controller.pin("web", None)
        await drive.go(5, until=lambda: not drive.state("web").observed.owners)
        assert drive.said("count") == ["is set by kubectl from now on", "is Shoal's again"]
        drive.engine.set_count("web", revision, 3, KUBECTL)
        await drive.go(5)
        assert drive.state("web").record.desired == 3 and drive.state("web").observed.owners


async def test_a_new_version_ends_what_was_set_by_hand() -> None:
    """Its replicas are another object's; it begins with as many as there were."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        old = await settle(drive)
        drive.engine.set_count("web", old, 4, KUBECTL)
        await drive.go(10, until=lambda: drive.controller.settled and len(drive.route("web").endpoints) == 4)
        drive.least_serving.clear()
        await drive.up({"web": {**WEB, "environment": {"A": "2"}}})
        new = await settle(drive)
        assert drive.state("web").observed.counts[new] == 4 and drive.least_serving["web"] == 4
        assert drive.state("web").held is None


async def test_who_would_set_it_again_is_not_fought() -> None:
    """`shoal scale` says what to remove instead."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        revision = await settle(drive)
        drive.engine.set_count("web", revision, 3, KEDA)
        await drive.go(5)
        with pytest.raises(Conflict, match=r"ScaledObject web sets how many replicas it has, .*; remove that first"):
            drive.controller.pin("web", 5)
        await drive.go(5)
        assert drive.state("web").observed.counts == {revision: 3}
