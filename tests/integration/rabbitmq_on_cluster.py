"""A fleet on a cluster whose queue is on a RabbitMQ beside it: what is the same on every engine.

No replica without a task, two where many wait; each task is done once, a poisoned one is buried and can be looked at
and put back; no command and no object shows the password.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from queues_broker import environment, send, until
from rabbitmq_node import CREDENTIALS, OnRabbitMq
from typed import Typed

from testbed.rabbitmq import RabbitMq
from tests.conformance.sink import Sink

PASSWORD = CREDENTIALS.partition(":")[2]
WITHIN_S = 90.0
EVERY_S = 1.0  # a command takes a processor that the fleet under test wants too
TASKS = 12


def spec(node: RabbitMq, worker: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The file of the fleet; `worker` says what its agent runs, `more` where the fleet is."""
    management = f"http://{node.host}:{node.management_port}"
    broker = {"type": "rabbitmq", "url": f"amqp://{node.host}:{node.port}", "management_url": management}
    scale = {"min": 0, "max": 2, "target": {"queue_depth": 4}}
    agents = {"worker": {**worker, "queue": "images", "scale": scale}, **more.pop("agents", {})}
    return {
        "fleet": "ware-house",
        "agents": agents,
        "queues": {"images": {"broker": "rabbit", "max_attempts": 2}},
        "brokers": {"rabbit": {**broker, "secret": "RABBITMQ"}},
        "secrets": {"RABBITMQ": {"environment": "SOURCE_OF_IT"}},
        **more,
    }


async def work(typed: Typed, broker: OnRabbitMq, sink: Sink, shown: Callable[[], str]) -> None:
    """`shown` is all that the cluster shows of the fleet's objects."""

    async def shoal(*words: str) -> str:
        said = await asyncio.to_thread(typed, *words, SOURCE_OF_IT=CREDENTIALS)
        assert PASSWORD not in said
        return said

    async def worker() -> Mapping[str, Any]:
        agents = json.loads(await shoal("status", "-o", "json"))["agents"]
        return next(agent for agent in agents if agent["name"] == "worker")

    async def two_are_ready() -> bool:
        return (await worker())["ready"] == 2

    async def buried() -> bool:
        (images,) = json.loads(await shoal("queue", "ls", "-o", "json"))
        assert images["broker"] == "rabbit"
        return images["dead"] == 1 and images["waiting"] + images["in_progress"] == 0

    def done() -> list[str]:
        events = [json.loads(line) for line in sink.said()]
        return sorted(event["name"] for event in events if event["event"] == "done")

    await shoal("up", "-d", "-y")
    asleep = await worker()
    assert (asleep["state"], asleep["desired"]) == ("asleep", 0)
    names = [f"task-{number:02}" for number in range(TASKS)]
    with environment(broker.environment("front")):
        await send(broker, *map(_task, names), _task("poison", poison=True))
    await until(two_are_ready, "two replicas", WITHIN_S, EVERY_S)
    await until(lambda: len(done()) >= TASKS, "the tasks", WITHIN_S)
    await until(buried, "the dead letter", WITHIN_S, EVERY_S)
    assert done() == names
    assert "failed 2 of 2 times: ValueError: this task is poison" in await shoal("queue", "peek", "images", "--dead")
    assert "1 dead letter put back" in await shoal("queue", "redrive", "images")
    for words in (("logs",), ("config",), ("plan", "-o", "json")):
        await shoal(*words)
    objects = await asyncio.to_thread(shown)
    assert "ware-house" in objects and PASSWORD not in objects
    await until(buried, "the dead letter again", WITHIN_S, EVERY_S)


def _task(name: str, *, poison: bool = False) -> bytes:
    return json.dumps({"name": name, "ms": 300, "poison": poison}).encode()
