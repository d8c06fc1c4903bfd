"""The loop on values: what it does, in which order, and that a dead controller's work is taken up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import NoReturn

import pytest

from shoal.control.agent_state import STALE_S
from shoal.core.action import Action, EnsureRevision, RunJob, Scale
from shoal.core.routing import Traffic
from shoal.core.wiring import Wiring
from shoal.engines.memory.behaviour import Behaviour
from shoal.errors import Conflict, EngineUnavailable, NotFound, StoreError
from shoal.proxy.codec import diff
from shoal.spec.model import Fleet
from tests.unit.control.drive import Drive, driving

WEB = {"command": "serve", "port": 80, "public": {"path": "/web"}}
QUICK = {"scale_down": {"stabilization_window": "1s", "policies": [{"type": "percent", "value": 100, "period": "1s"}]}}


def web(**more: object) -> dict[str, object]:
    return {**WEB, **more}


async def test_a_fleet_settles_and_then_nothing_moves() -> None:
    """Once at rest the loop asks the engine for nothing more and writes nothing."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 2, "max": 4, "target": {"concurrency": 10}})})
        await drive.go(5, until=lambda: drive.controller.settled)
        assert len(drive.route("web").endpoints) == 2
        before = len(drive.engine.acted)
        await drive.go(10)
        assert len(drive.engine.acted) == before and drive.controller.settled


async def test_demand_scales_up_at_once_and_down_after_its_window() -> None:
    """Concurrency of four replicas' worth brings four; without demand they go after the window, by way of the drain."""
    async with driving() as drive:
        scale = {"min": 1, "max": 8, "target": {"concurrency": 10}, "behavior": QUICK}
        await drive.up({"web": web(scale=scale)})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.load["web"] = Traffic(active=40)
        await drive.go(2, until=lambda: drive.state("web").record.desired == 4)
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.least_serving.clear()
        drive.load["web"] = Traffic(active=0)
        await drive.go(10, until=lambda: drive.controller.settled and drive.state("web").record.desired == 1)
        assert drive.least_serving["web"] >= 1 and len(drive.route("web").endpoints) == 1


async def test_nobody_is_stopped_before_the_gateways_agree() -> None:
    """While a gateway has not acknowledged, the replica that leaves keeps running; then it goes."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 1, "max": 3})})
        drive.controller.apply()
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.controller.pin("web", 3)
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.gateways._agrees = False  # pyright: ignore[reportPrivateUsage] - the test decides when
        drive.controller.pin("web", 1)
        await drive.go(2)
        assert len(drive.route("web").endpoints) == 1 and len(drive.state("web").observed.replicas) == 3
        assert not any(isinstance(a, Scale) and a.victims for a in drive.engine.acted)
        drive.gateways.acknowledge()
        await drive.go(5, until=lambda: len(drive.state("web").observed.replicas) == 1)


async def test_a_change_never_serves_with_less() -> None:
    """While a new revision comes, at least as many healthy endpoints as wished are there at any moment."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 3, "max": 3})})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.least_serving.clear()
        old = drive.state("web").revision
        await drive.up({"web": web(scale={"min": 3, "max": 3}, environment={"A": "2"})})
        await drive.go(20, until=lambda: drive.controller.settled)
        assert drive.state("web").revision != old
        assert {r.revision for r in drive.state("web").observed.replicas} == {drive.state("web").revision}
        assert drive.least_serving["web"] >= 3


async def test_a_new_replica_that_the_gateway_finds_unhealthy_replaces_nobody() -> None:
    """Ready by the engine is not enough: the old replica stays until the gateway sees the new one healthy."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.unhealthy = {"web-2"}
        await drive.up({"web": web(environment={"A": "2"})})
        await drive.go(10)
        assert "web-1" in {endpoint.replica for endpoint in drive.route("web").endpoints}
        drive.unhealthy.clear()
        await drive.go(5, until=lambda: drive.controller.settled)
        assert [endpoint.replica for endpoint in drive.route("web").endpoints] == ["web-2"]


async def test_asleep_held_awake_asleep() -> None:
    """At zero the route holds; a held request wakes it; the hold stays until the gateway sees a healthy endpoint, and
    is in force again before the last replica goes."""
    async with driving() as drive:
        scale = {"min": 0, "max": 2, "target": {"concurrency": 10}, "behavior": QUICK}
        await drive.up({"web": web(scale=scale)})
        await drive.go(5, until=lambda: drive.controller.settled)
        assert drive.state("web").record.desired == 0 and drive.route("web").hold
        drive.unhealthy = {"web-1"}
        drive.load["web"] = Traffic(held=1)
        await drive.go(3, until=lambda: len(drive.route("web").endpoints) == 1)
        await drive.go(1)
        assert drive.route("web").hold
        drive.unhealthy.clear()
        await drive.go(2, until=lambda: not drive.route("web").hold)
        drive.load["web"] = Traffic()
        drive.gateways._agrees = False  # pyright: ignore[reportPrivateUsage] - the test decides when
        await drive.go(5, until=lambda: drive.route("web").hold)
        assert len(drive.route("web").endpoints) == 1  # the hold first
        drive.gateways._agrees = True  # pyright: ignore[reportPrivateUsage]
        drive.gateways.acknowledge()
        await drive.go(5, until=lambda: not drive.state("web").observed.replicas)


async def test_queue_depth_wakes_and_scales_a_worker() -> None:
    """Depth is demand: at zero it wakes, then as many as the target asks for."""
    async with driving() as drive:
        scale = {"min": 0, "max": 5, "target": {"queue_depth": 10}, "behavior": QUICK}
        worker = {"command": "work", "queue": "tasks", "scale": scale}
        await drive.up({"w": worker}, queues={"tasks": {}}, brokers={"main": {"type": "embedded"}})
        await drive.go(3, until=lambda: drive.controller.settled)
        assert set(drive.queues.ensured) == {"tasks"}
        drive.queues.depths["tasks"] = 35
        await drive.go(3, until=lambda: drive.state("w").record.desired == 4)
        drive.queues.depths["tasks"] = 0
        await drive.go(6, until=lambda: not drive.state("w").observed.replicas)


async def test_what_is_not_known_any_more_changes_no_count() -> None:
    """Without a gateway, or with a broker that is away, demand is unknown: nobody is scaled down on that."""
    async with driving() as drive:
        worker = {"command": "work", "queue": "q", "scale": {"min": 0, "max": 5, "target": {"queue_depth": 1}}}
        busy = web(scale={"min": 1, "max": 8, "target": {"concurrency": 10}, "behavior": QUICK})
        agents = {"web": busy, "w": {**worker, "scale": {**worker["scale"], "behavior": QUICK}}}
        await drive.up(agents, queues={"q": {}}, brokers={"main": {"type": "embedded"}})
        drive.queues.depths["q"], drive.load["web"] = 3, Traffic(active=40)
        await drive.go(10)
        assert (drive.state("w").record.desired, drive.state("web").record.desired) == (3, 4)
        drive.queues.away = True
        drive.gateways.disconnect("g1")
        drive.silent = True
        await drive.go(60)
        assert (drive.state("w").record.desired, drive.state("web").record.desired) == (3, 4)


async def test_a_depth_that_is_known_again_counts_though_it_is_the_same() -> None:
    """The broker was away in the middle of the window after which an empty queue's workers go."""
    async with driving() as drive:
        down = {"scale_down": {**QUICK["scale_down"], "stabilization_window": "40s"}}
        scale = {"min": 0, "max": 5, "target": {"queue_depth": 10}, "behavior": down}
        worker = {"command": "work", "queue": "q", "scale": scale}
        await drive.up({"w": worker}, queues={"q": {}}, brokers={"main": {"type": "embedded"}})
        drive.queues.depths["q"] = 35
        await drive.go(10)
        assert drive.state("w").record.desired == 4
        drive.queues.depths["q"] = 0
        await drive.go(2)
        drive.queues.away = True
        await drive.go(60)
        assert drive.state("w").record.desired == 4
        drive.queues.away = False
        await drive.go(60, until=lambda: drive.state("w").record.desired == 0)


async def test_a_depth_that_is_read_again_and_again_is_no_reason_to_decide() -> None:
    """A worker on a quiet queue costs passes nothing; one whose depth is not known any more is looked at."""
    async with driving() as drive:
        worker = {"command": "work", "queue": "q", "scale": {"min": 0, "max": 5, "target": {"queue_depth": 1}}}
        await drive.up({"w": worker}, queues={"q": {}}, brokers={"main": {"type": "embedded"}})
        drive.queues.depths["q"] = 2
        await drive.go(5)
        assert drive.controller.settled and drive.state("w").record.desired == 2
        decided = drive.state("w").decision
        await drive.go(60)
        assert drive.state("w").decision is decided
        drive.queues.away = True
        await drive.go(STALE_S - 1)
        assert drive.state("w").signals.queue_depth is not None
        await drive.go(2)
        assert drive.state("w").signals.queue_depth is None


async def test_a_new_schedule_has_missed_nothing() -> None:
    """Editing a job's cron expression starts no run for times before the edit."""
    async with driving() as drive:
        job = {"command": "do", "schedule": {"cron": "0 0 * * *", "catch_up": "all"}}
        await drive.up({"j": job})
        await drive.go(3)
        drive.now += 3600
        await drive.up({"j": {**job, "schedule": {"cron": "* * * * *", "catch_up": "all"}}})
        await drive.go(3)
        assert not any(isinstance(action, RunJob) for action in drive.engine.acted)


async def test_jobs_run_once_at_each_time_whoever_is_controller() -> None:
    """Each scheduled time starts one run, and a new controller neither repeats nor forgets one."""
    async with driving() as drive:
        await drive.up({"j": {"command": "do", "schedule": {"cron": "* * * * *"}}})
        await drive.go(130)
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        await drive.go(130)
        runs = [action.run_id for action in drive.engine.acted if isinstance(action, RunJob)]
        assert len(runs) == len(set(runs)) == 4


async def test_who_takes_over_restarts_nothing_and_keeps_the_count() -> None:
    """A new controller finds replicas, count, pin and decisions, and changes none of them."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 1, "max": 8})})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.controller.pin("web", 5)
        await drive.go(5, until=lambda: drive.controller.settled)
        before = drive.state("web").observed.replicas
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        drive.engine.acted.clear()
        await drive.go(10)
        assert [r.id for r in drive.state("web").observed.replicas] == [r.id for r in before]
        assert all(isinstance(action, EnsureRevision) for action in drive.engine.acted)
        decisions = await drive.store.read_decisions("web")
        assert any(decision.count == 5 for decision in decisions)


async def test_lost_records_are_made_up_from_what_runs() -> None:
    """Without its records the controller takes the counts that the engine has: nothing that serves goes away."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 1, "max": 8, "target": {"concurrency": 10}})})
        drive.load["web"] = Traffic(active=60)
        await drive.go(1)
        await drive.go(20, until=lambda: drive.state("web").record.desired == 6 and drive.controller.settled)
        await drive.store.write({"web": None}, [])
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        assert drive.state("web").record.desired == 6
        await drive.go(3)
        assert len(drive.state("web").observed.replicas) == 6


async def test_an_action_that_fails_is_told_and_tried_again() -> None:
    """The reason is the agent's, the others go on, and the next try is after a pause."""
    async with driving() as drive:
        drive.engine.fail_next("no room here", when=lambda action: isinstance(action, EnsureRevision))
        drive.engine.fail_next("no room here", when=lambda action: isinstance(action, Scale))
        await drive.up({"web": WEB})
        await drive.go(0.5)
        assert drive.state("web").failure == "no room here" and drive.said("refused") == ["no room here"]
        assert len(drive.engine.acted) == 2  # EnsureRevision and Scale, once
        await drive.go(5, until=lambda: drive.controller.settled)
        assert drive.state("web").failure == ""


async def test_an_engine_that_is_away_changes_nothing() -> None:
    """While the engine can't be reached the problem is told once, and the gateway keeps what it has."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.engine.unavailable = "the engine is away"
        await drive.go(5)
        assert drive.controller.problems == {"pass": "the engine is away"}
        assert drive.said("problem") == ["the engine is away"] and len(drive.route("web").endpoints) == 1
        drive.engine.unavailable = None
        await drive.go(3)
        assert drive.controller.problems == {} and drive.said("solved") == ["no longer: the engine is away"]


async def test_an_engine_that_goes_away_between_look_and_action_fails_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the fleet's problem, and what was to be done is done once the engine is back."""

    async def away(_: object) -> NoReturn:
        raise EngineUnavailable("docker is away")

    async with driving() as drive:
        with monkeypatch.context() as patch:
            patch.setattr(drive.engine, "act", away)
            await drive.up({"web": WEB})
            await drive.go(5)
            assert drive.controller.problems == {"actions": "docker is away"} and drive.controller.problems.engine_away
            assert drive.state("web").failure == "" and drive.said("refused") == []
            assert drive.said("problem") == ["docker is away"]
        await drive.go(5, until=lambda: drive.controller.settled)
        assert not drive.controller.problems.engine_away


async def test_an_engine_that_did_it_and_only_did_not_say_so_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to do then, and the problem is over all the same."""
    async with driving() as drive:
        await drive.up({"web": WEB, "gone": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        act = drive.engine.act

        async def unheard(actions: Sequence[Action]) -> NoReturn:
            await act(actions)
            raise EngineUnavailable("docker is away")

        with monkeypatch.context() as patch:
            patch.setattr(drive.engine, "act", unheard)
            await drive.up({"web": WEB})
            await drive.go(20, until=lambda: "gone" not in drive.engine.look())
            assert drive.controller.problems.engine_away
        await drive.go(10, until=lambda: drive.controller.settled)
        await drive.go(2)
        assert drive.controller.problems == {} and not drive.controller.problems.engine_away


async def test_an_incomplete_look_loses_nobody() -> None:
    """Who is merely absent from an incomplete observation is not taken for gone."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.engine.incomplete = True
        drive.engine.lose("web-1")
        await drive.go(0.2)
        assert drive.state("web").record.desired == 1


async def test_a_removed_agent_is_drained_and_forgotten() -> None:
    """An agent that left the file goes out of the gateway, is stopped, and its records are gone."""
    async with driving() as drive:
        await drive.up({"web": WEB, "old": {"command": "serve", "port": 81}})
        await drive.go(5, until=lambda: drive.controller.settled)
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: "old" not in drive.controller.states)
        assert set(await drive.store.read_records()) == {"web"}
        await drive.go(1)
        assert set(drive.gateways.snapshot.agents if drive.gateways.snapshot else ()) == {"web"}


async def test_shut_down_leaves_nothing() -> None:
    """Everything is drained and stopped, and the fleet is forgotten, but not its generation."""
    async with driving() as drive:
        await drive.up(
            {"web": web(scale={"min": 3, "max": 3}), "j": {"command": "x", "schedule": {"cron": "0 0 1 1 *"}}}
        )
        await drive.go(5, until=lambda: drive.controller.settled)
        await drive.controller.shut_down(data=False)
        await drive.go(5, until=lambda: not drive.controller.states)
        stored = await drive.store.read_fleet()
        assert stored is not None and stored.fleet is None and stored.generation == 2
        assert (await drive.engine.observe()).agents == {}


async def test_a_crashing_version_leaves_the_old_one_and_is_told() -> None:
    """A revision that crashes on each start takes no old replica away."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 2, "max": 2})})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.least_serving.clear()
        drive.engine.behave("web", Behaviour(crash_after_s=0.1, ready_s=1.0))
        await drive.up({"web": web(scale={"min": 2, "max": 2}, environment={"BROKEN": "1"})})
        await drive.go(20)
        assert not drive.controller.settled and drive.least_serving["web"] == 2
        assert drive.said("crashed")


async def test_pins_and_runs_ask_for_what_exists() -> None:
    """An unknown agent is named with those that there are; a job has no count, a service no run."""
    async with driving() as drive:
        await drive.up({"web": WEB, "j": {"command": "x", "schedule": {"cron": "0 0 1 1 *"}}})
        await drive.go(3)
        with pytest.raises(NotFound, match="j, web"):
            drive.controller.pin("nope", 1)
        with pytest.raises(NotFound, match="is a job"):
            drive.controller.pin("j", 1)
        with pytest.raises(NotFound, match="no job"):
            drive.controller.run_job("web")
        run_id = drive.controller.run_job("j")
        await drive.go(3, until=lambda: any(run.run_id == run_id for run in drive.state("j").observed.runs))


async def test_a_pin_ends_by_itself() -> None:
    """A pin for a time holds for it, and is over then."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 1, "max": 4, "target": {"concurrency": 5}, "behavior": QUICK})})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.controller.pin("web", 3, for_s=10.0)
        await drive.go(5, until=lambda: len(drive.route("web").endpoints) == 3)
        await drive.go(4)
        assert drive.state("web").record.desired == 3
        await drive.go(15, until=lambda: drive.state("web").record.desired == 1)


async def test_limits_are_divided_again_when_a_gateway_comes() -> None:
    """The number of gateways is part of what they are told."""
    async with driving() as drive:
        await drive.up({"web": web(max_requests=10)})
        await drive.go(3)
        drive.gateways.connect("g2")
        await drive.go(1)
        assert drive.gateways.snapshot is not None and drive.gateways.snapshot.gateways == 2


async def test_traffic_of_an_agent_is_kept_across_its_gateway() -> None:
    """A gateway that restarts takes no request back: the rate is never negative."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 1, "max": 4, "target": {"rps": 100}})})
        await drive.go(3)
        drive.load["web"] = Traffic(requests=5000)
        await drive.go(1)
        drive.load["web"] = replace(drive.load["web"], requests=10)
        for _ in range(20):
            await drive.go(0.1)
            rps = drive.state("web").signals.rps
            assert rps is not None and 0 <= rps.value <= 5000


async def test_what_is_asked_during_a_load_is_not_lost() -> None:
    """A `down` that comes while a fleet is being taken up is carried out after it."""
    async with driving() as drive:
        ensure = drive.platform.ensure

        async def slow(fleet: Fleet) -> Wiring:
            drive.platform.ensure = ensure  # pyright: ignore[reportAttributeAccessIssue]
            await drive.controller.shut_down(data=False)
            return await ensure(fleet)

        drive.platform.ensure = slow  # pyright: ignore[reportAttributeAccessIssue]
        await drive.up({"web": WEB})
        await drive.go(5)
        assert drive.controller.states == {} and (await drive.engine.observe()).agents == {}


async def test_nothing_is_settled_while_a_fleet_is_taken_up() -> None:
    """Who asks in the middle, as its platform takes a moment, is not told of the fleet before as if it was this one."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        ensure, seen = drive.platform.ensure, list[bool]()

        async def slow(fleet: Fleet) -> Wiring:
            seen.append(drive.controller.settled)
            return await ensure(fleet)

        drive.platform.ensure = slow  # pyright: ignore[reportAttributeAccessIssue]
        await drive.up({"web": web(environment={"VERSION": "2"})})
        await drive.go(5, until=lambda: drive.controller.settled)
        assert seen == [False]


async def test_old_replicas_call_whom_they_could_until_they_end() -> None:
    """Also under a controller that comes in the middle, and learns of their revision from what was stored."""
    async with driving(ready_s=5.0) as drive:
        back = {"command": "serve", "port": 81}
        await drive.up({"web": web(calls=["back"]), "back": back, "other": {**back, "port": 82}})
        await drive.go(20, until=lambda: drive.controller.settled)
        assert callees(drive) == ("back",)
        await drive.up({"web": web(calls=["other"]), "back": back, "other": {**back, "port": 82}})
        await drive.go(1)
        assert callees(drive) == ("other", "back")
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        await drive.go(1)
        assert callees(drive) == ("other", "back")
        await drive.go(30, until=lambda: drive.controller.settled)
        assert callees(drive) == ("other",)


async def test_a_caller_of_which_nothing_changed_is_not_told_again() -> None:
    """A change of one agent costs the gateways that one, not all that there are."""
    async with driving() as drive:
        others = {"back": {"command": "b", "port": 81}, "shop": {"command": "s", "port": 82, "calls": ["back"]}}
        await drive.up({"web": web(calls=["back"]), **others})
        await drive.go(3, until=lambda: drive.controller.settled)
        before = drive.gateways.snapshot
        await drive.up({"web": web(calls=["back", "shop"]), **others})
        await drive.go(5, until=lambda: drive.controller.settled)
        after = drive.gateways.snapshot
        assert before is not None and after is not None and callees(drive) == ("back", "shop")
        changed = diff(before, after, 2)
        assert set(changed.callers) == {"web"} and not changed.gone_callers


def callees(drive: Drive) -> tuple[str, ...]:
    assert drive.gateways.snapshot is not None
    return drive.gateways.snapshot.callers["web"].may_call


async def test_a_refused_run_is_not_lost() -> None:
    """A scheduled run and one by hand that the engine refuses, or that it can't be asked for, start later, once."""
    async with driving() as drive:
        await drive.up({"j": {"command": "do", "schedule": {"cron": "* * * * *"}}})
        await drive.go(3)
        drive.engine.fail_next("busy", when=lambda action: isinstance(action, RunJob))
        by_hand = drive.controller.run_job("j")
        await drive.go(0.2)
        assert drive.state("j").failure == "busy" and not drive.state("j").observed.runs
        await drive.go(3, until=lambda: any(run.run_id == by_hand for run in drive.state("j").observed.runs))
        drive.engine.unavailable = "away"
        await drive.go(70)
        drive.engine.unavailable = None
        await drive.go(5, until=lambda: len(drive.state("j").observed.runs) == 2)
        assert len({run.run_id for run in drive.state("j").observed.runs}) == 2


async def test_a_fleet_that_cannot_be_taken_up_leaves_the_one_before() -> None:
    """While a new generation fails to load, the old one goes on: requests wake agents and jobs run."""
    async with driving() as drive:
        asleep = web(scale={"min": 0, "max": 2, "target": {"concurrency": 10}})
        await drive.up({"web": asleep})
        await drive.go(3, until=lambda: drive.controller.settled)
        drive.platform.fails = "port 8080 is taken"
        await drive.up({"web": asleep, "more": {"command": "x", "port": 81}})
        drive.load["web"] = Traffic(held=1)
        await drive.go(5, until=lambda: len(drive.route("web").endpoints) == 1)
        assert drive.controller.problems == {"load": "port 8080 is taken"} and not drive.controller.settled
        drive.platform.fails = None
        await drive.go(5, until=lambda: "more" in drive.controller.states)
        assert drive.controller.problems == {}


async def test_nothing_is_touched_before_the_fleet_is_known() -> None:
    """A new controller that can't load the fleet leaves what runs alone."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        drive.platform.fails = "no"
        await drive.go(10)
        assert len(drive.state("web").observed.replicas) == 1
        drive.platform.fails = None
        await drive.go(5, until=lambda: drive.controller.settled)


async def test_a_down_that_was_cut_off_is_finished() -> None:
    """A controller that starts on a fleet that is being taken down stops what is left."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        await drive.controller.shut_down(data=False)
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        await drive.go(5, until=lambda: not drive.controller.states)
        assert (await drive.engine.observe()).agents == {}


async def test_who_takes_over_in_the_middle_of_a_wake_keeps_the_hold() -> None:
    """Until the gateway sees a healthy endpoint the route holds, whoever is controller."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 0, "max": 2, "target": {"concurrency": 10}})})
        await drive.go(3, until=lambda: drive.controller.settled)
        drive.unhealthy, drive.load["web"] = {"web-1"}, Traffic(held=1)
        await drive.go(3, until=lambda: len(drive.route("web").endpoints) == 1)
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        await drive.go(1)
        assert drive.route("web").hold and len(drive.route("web").endpoints) == 1


async def test_a_failed_write_is_repeated() -> None:
    """A pin whose record could not be written is written with the next pass."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 1, "max": 3})})
        await drive.go(5, until=lambda: drive.controller.settled)
        write, drive.store.write = drive.store.write, _refuse  # pyright: ignore[reportAttributeAccessIssue]
        drive.controller.pin("web", 2)
        await drive.go(0.5)
        assert drive.controller.problems == {"pass": "disk full"}
        drive.store.write = write  # pyright: ignore[reportAttributeAccessIssue]
        await drive.go(5, until=lambda: drive.controller.settled)
        assert (await drive.store.read_records())["web"].pin is not None
        assert [decision.count for decision in await drive.store.read_decisions("web")].count(2) == 1


async def _refuse(*_: object) -> None:
    raise StoreError("disk full")


async def test_up_while_down_drains_starts_again() -> None:
    """Whoever waits for the end learns that somebody started the fleet again."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        await drive.controller.shut_down(data=False)
        await drive.go(0.1)
        await drive.up({"web": WEB})
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_conflict(drive.controller.wait_stopped()))
            await drive.go(5, until=lambda: drive.controller.settled)
        assert "started again by test" in waiting.result()


async def _conflict(waiting: Awaitable[None]) -> str:
    with pytest.raises(Conflict) as caught:
        await waiting
    return str(caught.value)


async def test_a_clock_that_is_set_back_keeps_nobody_waiting() -> None:
    """An hour set back is no hour without a scale-down, a retry or a load: what is remembered keeps its age."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 1, "max": 8, "target": {"concurrency": 10}, "behavior": QUICK})})
        drive.load["web"] = Traffic(active=40)
        await drive.go(5, until=lambda: drive.controller.settled and drive.state("web").record.desired == 4)
        drive.platform.fails = "no"
        drive.engine.fail_next("busy")
        await drive.up({"web": web(scale={"min": 1, "max": 8, "target": {"concurrency": 10}, "behavior": QUICK})})
        await drive.go(0.3)
        drive.platform.fails = None
        drive.load["web"] = Traffic(active=0)
        drive.now -= 3600.0
        await drive.go(10, until=lambda: drive.controller.settled and drive.state("web").record.desired == 1)


async def test_records_of_the_future_hold_nothing_up() -> None:
    """A controller that starts after the clock was set back counts scale events no longer than if they were of now."""
    async with driving() as drive:
        scale = {"min": 1, "max": 8, "target": {"concurrency": 10}, "behavior": QUICK}
        await drive.up({"web": web(scale=scale)})
        drive.load["web"] = Traffic(active=80)
        await drive.go(1)
        await drive.go(5, until=lambda: drive.state("web").record.desired == 4)  # at most 4 more in 15 s
        drive.now -= 3600.0
        drive.controller = drive.new_controller()
        await drive.controller.take_over()
        took_over = drive.now
        await drive.go(20, until=lambda: drive.state("web").record.desired == 8)
        assert drive.now - took_over <= 15.5  # the window of the policy, not the hour


async def test_who_takes_over_waits_for_its_records() -> None:
    """A store that can't be read when a controller starts is told and tried again; nothing is touched meanwhile."""
    async with driving() as drive:
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.controller = drive.new_controller()
        read, drive.store.read_records = drive.store.read_records, _refuse  # pyright: ignore[reportAttributeAccessIssue]
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(drive.controller.take_over())
            await asyncio.sleep(0)
            assert drive.controller.problems == {"records": "disk full"} and not taking.done()
            drive.store.read_records = read  # pyright: ignore[reportAttributeAccessIssue]
            taking.cancel()
        await drive.controller.take_over()
        await drive.go(2, until=lambda: drive.controller.settled)
        assert drive.controller.problems == {}


async def test_a_forgotten_agent_leaves_the_gateways_at_once() -> None:
    """The pass after an agent is forgotten takes its route away, though nothing else happens."""
    async with driving() as drive:
        await drive.up({"web": WEB, "old": {"command": "serve", "port": 81}})
        await drive.go(5, until=lambda: drive.controller.settled)
        await drive.up({"web": WEB})
        await drive.go(5, until=lambda: "old" not in drive.controller.states)
        await drive.controller.run_pass()
        assert drive.gateways.snapshot is not None and set(drive.gateways.snapshot.agents) == {"web"}


async def test_who_left_stays_away_when_the_hold_comes_first() -> None:
    """While the last replicas wait for the hold, those that left before and are being stopped are not sent to again."""
    async with driving() as drive:
        scale = {"min": 0, "max": 5, "target": {"concurrency": 10}, "behavior": QUICK}
        await drive.up({"web": web(scale=scale)})
        await drive.go(1)
        drive.controller.pin("web", 4)
        await drive.go(5, until=lambda: len(drive.route("web").endpoints) == 4 and not drive.route("web").hold)
        drive.load["web"] = Traffic()
        drive.gateways._agrees = False  # pyright: ignore[reportPrivateUsage] - the test decides when
        drive.controller.pin("web", 2)
        await drive.go(1, until=lambda: len(drive.state("web").leaving) == 2)
        left = drive.state("web").leaving
        drive.gateways.acknowledge()
        for _ in range(3):
            await asyncio.sleep(0)  # the barrier ends
        assert drive.state("web").left == left
        drive.controller.pin("web", 0)
        await drive.controller.run_pass()
        assert drive.route("web").hold
        assert not {endpoint.replica for endpoint in drive.route("web").endpoints} & left


async def test_who_asks_for_a_change_is_answered_though_it_cannot_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in force, and stored once there is room."""
    async with driving() as drive:
        await drive.up({"web": web(scale={"min": 1, "max": 3})})
        await drive.go(5, until=lambda: drive.controller.settled)

        async def full(*_: object) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(drive.store, "write", full)
            async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
                told = tasks.create_task(drive.controller.next_change())
                drive.controller.pin("web", 2)
                await asyncio.sleep(0)
                await drive.go(1)
            assert told.done() and drive.controller.problems == {"pass": "the disk is full"}
        await drive.go(5, until=lambda: drive.controller.settled)
        assert (await drive.store.read_records())["web"].desired == 2
        assert drive.controller.problems == {}
