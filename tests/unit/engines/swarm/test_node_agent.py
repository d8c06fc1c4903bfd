"""The agent of a node, on virtual time: its Docker and its containers are values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, cast

import pytest

from shoal.engines.swarm.node.agent import Clocks, NodeAgent
from shoal.engines.swarm.node.states import State
from shoal.engines.swarm.render import render_deadline
from shoal.errors import EngineUnavailable
from tests.simulation.virtual_time import run_virtually

EPOCH = 1_700_000_000.0
MISS = "no answer within 1s"
CHECK = {"port": 8000, "interval_s": 2.0, "timeout_s": 1.0, "retries": 3, "start_period_s": 20.0, "grace_s": 5.0}


class Node:
    """A node's Docker and the containers on it. `answers` says by container when it answers."""

    def __init__(self) -> None:
        self.running: dict[str, float] = {}  # by container when it was created
        self.answers: dict[str, Callable[[float], bool]] = {}
        self.deadlines: dict[str, str] = {}
        self.killed: list[tuple[float, str, str]] = []
        self.survives: frozenset[str] = frozenset()
        self.events_now: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.away = False
        self.cpu_s = 0.0
        self.looks = 0

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def start(self, container: str, answers: Callable[[float], bool] = lambda _: True) -> None:
        self.running[container] = EPOCH + self.now_s
        self.answers[container] = answers
        self.happens("start", container)

    def happens(self, action: str, container: str, **attributes: str) -> None:
        actor = {"ID": container, "Attributes": attributes}
        self.events_now.put_nowait({"Action": action, "Actor": actor, "timeNano": int((EPOCH + self.now_s) * 1e9)})

    async def containers(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        assert labels == {"shoal.fleet": "f"}
        if self.away:
            raise EngineUnavailable("away")
        return [
            {
                "Id": container,
                "Created": created,
                "Labels": {
                    "com.docker.swarm.task.id": f"task-{container}",
                    "shoal.agent": "web",
                    "shoal.health": "" if container in self.deadlines else json.dumps(CHECK),
                    "shoal.timeout": self.deadlines.get(container, ""),
                },
                "NetworkSettings": {"Networks": {"f": {"IPAddress": container}}},
            }
            for container, created in self.running.items()
        ]

    async def events(self, **_: object) -> AsyncGenerator[dict[str, Any]]:
        while True:
            yield await self.events_now.get()

    async def kill(self, container: str, signal: str) -> None:
        self.killed.append((self.now_s, container, signal))
        self.happens("kill", container, signal="15")
        if container not in self.survives or signal == "SIGKILL":
            self.running.pop(container, None)
            self.happens("die", container)

    async def stats_once(self, container: str) -> dict[str, Any]:
        self.looks += 1
        return {"cpu_stats": {"cpu_usage": {"total_usage": int(self.cpu_s * 1e9)}}, "memory_stats": {"usage": 7}}

    async def ask(self, host: str, port: int, path: str | None, timeout_s: float) -> str | None:
        assert (port, path) == (8000, None)
        if self.answers[host](self.now_s):
            return None
        await asyncio.sleep(timeout_s)
        return MISS

    def agent(self) -> NodeAgent:
        loop = asyncio.get_running_loop()
        clocks = Clocks(wall=lambda: EPOCH + loop.time(), steady=loop.time)
        return NodeAgent(cast("Any", self), "f", ask=self.ask, clocks=clocks)


def play(story: Callable[[Node, NodeAgent], Awaitable[None]]) -> Node:
    """Runs it beside an agent."""
    node = Node()

    async def run() -> None:
        agent = node.agent()
        async with asyncio.TaskGroup() as group:
            working = group.create_task(agent.run())
            await asyncio.sleep(0.01)
            await story(node, agent)
            working.cancel()

    run_virtually(run())
    return node


def state_of(agent: NodeAgent, container: str) -> State:
    state = agent.states.get(container)
    assert state is not None
    return state


def test_a_new_container_is_ready_with_its_first_answer():
    """It is found by its event and not by the next look."""

    async def story(node: Node, agent: NodeAgent) -> None:
        born_s = node.now_s
        node.start("a", lambda now_s: now_s > born_s + 1.5)
        await asyncio.sleep(1.2)
        assert state_of(agent, "a") == State("a", "task-a", ready=False, reason=f"not ready yet: {MISS}")
        await asyncio.sleep(1.5)
        state = state_of(agent, "a")
        assert state.ready
        assert state.ready_at == pytest.approx(EPOCH + born_s + 2.2, abs=0.1)

    play(story)


def test_a_dead_container_is_ended_and_why_is_kept():
    """Before that it is not ready, and known as one that was: its gateway asks it too."""

    async def story(node: Node, agent: NodeAgent) -> None:
        node.start("a", lambda now_s: now_s < 5.0)
        await asyncio.sleep(4.0)
        ready_at = state_of(agent, "a").ready_at
        await asyncio.sleep(16.0)
        state = state_of(agent, "a")
        assert (state.ready, state.ready_at, state.ended_at) == (False, ready_at, None)
        assert state.reason.startswith("health check failed ") and state.reason.endswith(f" times in a row: {MISS}")
        await asyncio.sleep(50.0)
        state = state_of(agent, "a")
        assert (state.ready, state.ready_at) == (False, None)
        assert state.reason == f"health check failed 15 times in a row: {MISS}"
        await asyncio.sleep(700.0)
        assert agent.states.get("a") is None

    node = play(story)
    assert [(container, signal) for _, container, signal in node.killed] == [("a", "SIGTERM")]
    # Ready checks come every 2 s, and each miss takes 1 s: the fifteenth ends 45 s after the last answer at the latest.
    assert 45.0 <= node.killed[0][0] <= 50.0


def test_who_does_not_end_within_its_grace_is_killed():
    async def story(node: Node, agent: NodeAgent) -> None:
        node.survives = frozenset("a")
        node.start("a", lambda now_s: now_s < 5.0)
        await asyncio.sleep(60.0)

    node = play(story)
    assert [signal for _, _, signal in node.killed] == ["SIGTERM", "SIGKILL"]
    assert node.killed[1][0] - node.killed[0][0] == pytest.approx(5.0)


def test_a_run_ends_at_its_timeout():
    """SIGTERM, its grace, SIGKILL; who ended before is left alone. That somebody sent it a signal, an agent before this
    one may be, changes nothing."""

    async def story(node: Node, agent: NodeAgent) -> None:
        node.survives = frozenset("a")
        for container in ("a", "b"):
            node.deadlines[container] = render_deadline(30.0, 5.0)
            node.start(container)
        born_s = node.now_s
        await asyncio.sleep(20.0)
        assert node.killed == [] and agent.states.all() == []
        del node.running["b"]
        node.happens("die", "b")
        node.happens("kill", "a", signal="15")
        await asyncio.sleep(60.0)
        assert node.killed == [
            (pytest.approx(born_s + 30.0, abs=0.1), "a", "SIGTERM"),
            (pytest.approx(born_s + 35.0, abs=0.1), "a", "SIGKILL"),
        ]
        state = state_of(agent, "a")
        assert (state.ready, state.reason) == (False, "timed out after 30s") and state.ended_at is not None

    play(story)


def test_who_ran_out_of_memory_and_died_says_so():
    """A process of a container may be killed for its memory, and the container go on."""
    labels = {"com.docker.swarm.task.id": "task-a", "shoal.memory": str(150 * 2**20)}

    async def story(node: Node, agent: NodeAgent) -> None:
        node.start("a")
        await asyncio.sleep(1.0)
        node.happens("oom", "a", **labels)
        await asyncio.sleep(1.0)
        assert state_of(agent, "a").ready
        del node.running["a"]
        node.happens("die", "a", exitCode="137", **labels)
        await asyncio.sleep(1.0)
        state = state_of(agent, "a")
        assert not state.ready and state.ended_at is not None
        assert state.reason == "out of memory: limit 150 MiB (resources.memory)"
        node.start("b")
        node.happens("oom", "b", **labels)
        await asyncio.sleep(1.0)
        del node.running["b"]
        node.happens("die", "b", exitCode="0", **labels)  # it coped, and was done
        await asyncio.sleep(1.0)
        assert agent.states.get("b") is None

    play(story)


def test_who_starts_is_left_alone_for_its_start_period():
    async def story(node: Node, agent: NodeAgent) -> None:
        node.start("a", lambda _: False)
        await asyncio.sleep(19.0)
        assert node.killed == []
        await asyncio.sleep(5.0)
        assert state_of(agent, "a").reason == f"does not answer 20s after its start: {MISS}"

    assert len(play(story).killed) == 1


def test_who_is_being_stopped_is_not_judged_any_more():
    """It may well not answer, and has its own time to end."""

    async def story(node: Node, agent: NodeAgent) -> None:
        node.start("a", lambda now_s: now_s < 5.0)
        await asyncio.sleep(4.9)
        node.happens("kill", "a", signal="15")
        await asyncio.sleep(60.0)
        assert state_of(agent, "a").ready

    assert play(story).killed == []


def test_a_signal_to_load_anew_stops_nobody():
    async def story(node: Node, agent: NodeAgent) -> None:
        node.start("a", lambda now_s: now_s < 5.0)
        await asyncio.sleep(2.0)
        node.happens("kill", "a", signal="1")
        await asyncio.sleep(60.0)

    assert len(play(story).killed) == 1


def test_a_docker_that_is_away_changes_nothing():
    async def story(node: Node, agent: NodeAgent) -> None:
        node.start("a")
        await asyncio.sleep(1.0)
        node.away = True
        await asyncio.sleep(60.0)
        assert state_of(agent, "a").ready

    assert play(story).killed == []


def test_an_agent_that_begins_tells_of_nobody_before_it_knows():
    """Who was ready under the agent before must not be told unready for one miss."""

    async def story() -> None:
        node = Node()
        node.start("a", lambda now_s: now_s > 101.0)
        await asyncio.sleep(100.0)
        agent = node.agent()
        async with asyncio.TaskGroup() as group:
            working = group.create_task(agent.run())
            await asyncio.sleep(0.9)
            assert agent.states.all() == []
            await asyncio.sleep(4.0)
            assert state_of(agent, "a").ready
            working.cancel()
        assert node.killed == []

    run_virtually(story())


def test_a_miss_of_an_agent_that_slept_itself_does_not_count():
    """A machine that was frozen must not come back to the end of all its containers."""

    async def story() -> None:
        node = Node()
        agent = node.agent()

        async def sleepy(host: str, port: int, path: str | None, timeout_s: float) -> str | None:
            if node.now_s < 5.0:
                return None
            await asyncio.sleep(30.0)
            return MISS

        agent = NodeAgent(cast("Any", node), "f", ask=sleepy, clocks=agent._clocks)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(agent.run())
            node.start("a")
            await asyncio.sleep(200.0)
            assert state_of(agent, "a").ready
            working.cancel()
        assert node.killed == []

    run_virtually(story())


def test_use_is_measured_at_most_once_a_second():
    async def story(node: Node, agent: NodeAgent) -> None:
        node.start("a")
        await asyncio.sleep(0.1)
        assert await agent.usage() == {}
        assert await agent.usage() == {}
        assert node.looks == 1
        node.cpu_s = 1.0
        await asyncio.sleep(2.0)
        use = (await agent.usage())["task-a"]
        assert (use.cpu_cores, use.memory_bytes, use.window_s) == (pytest.approx(0.5), 7, pytest.approx(2.0))
        assert node.looks == 2

    play(story)


def test_a_change_is_told_at_once_and_silence_is_broken_by_a_heartbeat():
    async def story(node: Node, agent: NodeAgent) -> None:
        lines = agent.states.follow(heartbeat_s=0.5)
        assert await anext(lines) == []
        begun_s = node.now_s
        assert await anext(lines) == []
        assert node.now_s == pytest.approx(begun_s + 0.5)
        node.start("a")
        told_s = node.now_s
        assert [state.ready for state in await anext(lines)] == [True]
        assert node.now_s == pytest.approx(told_s)

    play(story)
