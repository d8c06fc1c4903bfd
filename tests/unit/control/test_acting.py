"""An engine that takes its time with one agent: the others go on, and nobody is acted upon on old news."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import pytest

from shoal.api.present import is_settled
from shoal.control.acting import TOGETHER_S, WAIT_S, Acting
from shoal.control.agent_pass import Outcome
from shoal.control.agent_state import AgentState
from shoal.control.controller import LOOK_APART_S
from shoal.core.action import Action, ActionFailure, Scale
from shoal.core.observed import AgentObserved, Observed
from shoal.engines.memory.engine import MemoryEngine
from shoal.errors import EngineUnavailable
from tests.simulation.virtual_time import run_virtually
from tests.unit.control.drive import Drive, driving

SERVICE = {"command": "serve", "port": 80}


class Slow:
    """An engine that answers for one agent only once it may."""

    def __init__(self, engine: MemoryEngine, agent: str) -> None:
        self._act, self._agent = engine.act, agent
        self.may = asyncio.Event()
        self.asked = 0
        self.away = False
        self.reasons: Sequence[str] = ()  # why nothing was done

    async def act(self, actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
        if actions[0].agent == self._agent:
            self.asked += 1
            await self.may.wait()
            if self.away:
                raise EngineUnavailable("no route")
            if self.reasons:
                return tuple(ActionFailure(actions[0], reason) for reason in self.reasons)
        return await self._act(actions)


def with_two_agents(monkeypatch: pytest.MonkeyPatch, story: Callable[[Drive, Slow], Awaitable[None]]) -> None:
    """`web` and `stock` serve with one replica each; from then on the engine is slow with `stock`."""

    async def run() -> None:
        async with driving() as drive:
            await drive.up({"web": SERVICE, "stock": {**SERVICE, "port": 81}})
            await drive.go(5, until=lambda: drive.controller.settled)
            slow = Slow(drive.engine, "stock")
            monkeypatch.setattr(drive.engine, "act", slow.act)
            drive.controller.pin("stock", 2)
            await drive.go(1)
            await story(drive, slow)

    run_virtually(run())


def scalings(drive: Drive, agent: str) -> list[int]:
    return [each.count for each in drive.engine.acted if isinstance(each, Scale) and each.agent == agent]


def test_the_others_are_scaled_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow one is left alone until it is done; what it should be by then is done next."""

    async def story(drive: Drive, slow: Slow) -> None:
        drive.controller.pin("web", 3)
        await drive.go(2, until=lambda: len(drive.state("web").observed.replicas) == 3)
        drive.controller.pin("stock", 4)
        await drive.go(2)
        assert slow.asked == 1 and scalings(drive, "stock") == [1] and not drive.controller.settled
        slow.may.set()
        await drive.go(5, until=lambda: drive.controller.settled)
        assert scalings(drive, "stock") == [1, 2, 4] and len(drive.state("stock").observed.replicas) == 4

    with_two_agents(monkeypatch, story)


def test_a_pass_waits_only_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what it began itself; what another one began costs it nothing."""

    async def story(drive: Drive, slow: Slow) -> None:
        loop = asyncio.get_running_loop()
        slow.may.set()
        await drive.go(5, until=lambda: drive.controller.settled)
        slow.may.clear()
        took: list[float] = []
        drive.controller.pin("stock", 5)
        for _ in range(3):
            began = loop.time()
            await drive.controller.run_pass()
            took.append(loop.time() - began)
        assert took == pytest.approx([WAIT_S, 0.0, 0.0])
        slow.may.set()

    with_two_agents(monkeypatch, story)


def test_an_engine_that_was_away_for_one_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told meanwhile, and is over once that one is done, whatever the others do."""

    async def story(drive: Drive, slow: Slow) -> None:
        slow.away = True
        slow.may.set()
        await drive.go(0.5)
        drive.controller.pin("web", 2)
        await drive.go(2)
        assert drive.controller.problems == {"actions": "no route"} and drive.state("stock").failure == ""
        slow.away = False
        await drive.go(5, until=lambda: drive.controller.settled)
        assert drive.controller.problems == {} and len(drive.state("stock").observed.replicas) == 2

    with_two_agents(monkeypatch, story)


def test_what_ends_late_is_over_though_nothing_else_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The problem is, and who asked is answered: an action that changes nothing makes the engine tell of nothing."""

    async def story(drive: Drive, slow: Slow) -> None:
        slow.away = True
        slow.may.set()
        await drive.go(0.5)
        assert drive.controller.problems == {"actions": "no route"}
        slow.away = False
        await drive.go(5, until=lambda: drive.controller.settled)
        drive.controller.state_of("stock").ensure = True  # as for who takes a fleet over
        slow.away = True
        drive.controller.touch("stock")
        await drive.go(0.3)
        assert drive.controller.problems == {"actions": "no route"}
        slow.away = False
        slow.may.clear()
        await drive.go(3)
        assert drive.controller.state_of("stock").acting and not is_settled(drive.controller.state_of("stock"))
        slow.may.set()
        await drive.go(0.5)
        assert drive.controller.problems == {} and is_settled(drive.controller.state_of("stock"))

    with_two_agents(monkeypatch, story)


def test_many_that_could_not_be_asked_are_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told once, though each has other words; that the engine is away is before what else went wrong."""

    async def run() -> None:
        async with driving() as drive:
            await drive.up({name: {**SERVICE, "port": port} for port, name in enumerate(("a", "b", "c"), 81)})
            await drive.go(5, until=lambda: drive.controller.settled)

            async def act(actions: Sequence[Action]) -> NoReturn:
                kind = RuntimeError if actions[0].agent == "a" else EngineUnavailable
                raise kind(f"no answer for {actions[0].agent}")

            with monkeypatch.context() as patch:
                patch.setattr(drive.engine, "act", act)
                for name in ("a", "b", "c"):
                    drive.controller.pin(name, 2)
                await drive.go(5)
                assert (
                    drive.controller.problems == {"actions": "no answer for b"}
                    and drive.controller.problems.engine_away
                )
                assert drive.said("problem") == ["no answer for b"] and drive.said("refused") == ["no answer for a"]
            await drive.go(5, until=lambda: drive.controller.settled)
            assert drive.controller.problems == {}

    run_virtually(run())


def test_nothing_is_decided_on_a_look_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is done while the engine is being looked at is acted upon after the next look."""

    async def story(drive: Drive, slow: Slow) -> None:
        observe = drive.engine.observe

        async def observe_slowly() -> Observed:
            seen = await observe()
            slow.may.set()
            for _ in range(5):
                await asyncio.sleep(0)  # its action takes effect, and ends
            return seen

        with monkeypatch.context() as patch:
            patch.setattr(drive.engine, "observe", observe_slowly)
            drive.now += LOOK_APART_S
            drive.controller.touch("stock")
            drive.controller.look()
            await drive.controller.run_pass()
        assert scalings(drive, "stock") == [1, 2] and slow.asked == 1
        await drive.go(5, until=lambda: drive.controller.settled)
        assert scalings(drive, "stock") == [1, 2]

    with_two_agents(monkeypatch, story)


def test_what_was_decided_on_old_news_is_decided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no failure, and nobody is told; the other actions' reasons are."""

    async def story(drive: Drive, slow: Slow) -> None:
        slow.reasons = ["", "no room here"]
        slow.may.set()
        drive.controller.pin("stock", 3)
        await drive.go(0.5)
        assert drive.state("stock").failure == "no room here" and drive.said("refused") == ["no room here"]
        slow.reasons = [""]
        await drive.go(1.5)
        assert drive.state("stock").failure == "" and not drive.controller.settled and slow.asked >= 2
        slow.reasons = []
        await drive.go(5, until=lambda: drive.controller.settled)
        assert drive.said("refused") == ["no room here"] and len(drive.state("stock").observed.replicas) == 3

    with_two_agents(monkeypatch, story)


def test_many_that_end_one_by_one_are_taken_up_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass each would cost more than they do; after the last one nothing is waited for."""
    woken: list[float] = []

    async def run() -> None:
        async with driving() as drive:
            clock, began = asyncio.get_running_loop().time, asyncio.get_running_loop().time()

            async def act(actions: Sequence[Action]) -> tuple[ActionFailure, ...]:
                await asyncio.sleep(int(actions[0].agent) * TOGETHER_S / 4)
                return ()

            monkeypatch.setattr(drive.engine, "act", act)
            states = {f"{number}": AgentState(f"{number}", None, AgentObserved(f"{number}")) for number in range(1, 11)}
            controller = drive.controller
            acting = Acting(
                controller.parts, states, controller.problems, note=controller.note,
                wake=lambda: woken.append((clock() - began) / TOGETHER_S),
            )  # fmt: skip
            assert drive.tasks is not None
            await acting.carry_out({name: Outcome((Scale(name, "r1", 1),)) for name in states}, drive.tasks)
            await asyncio.sleep(10 * TOGETHER_S)

    run_virtually(run())
    assert woken == pytest.approx([1.25, 2.25, 2.5])
