"""A fleet on a real Swarm whose queue is on a RabbitMQ beside it: credentials as a Swarm secret, scaled from zero."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from queues_broker import environment, send, until
from rabbitmq_node import CREDENTIALS, OnRabbitMq, rabbitmq_node, require_rabbitmq
from swarm_typed import Typed

from shoal.errors import NotFound
from shoal.sdk import close
from testbed.commands import run
from testbed.rabbitmq import RabbitMq
from tests.conformance.sink import Sink
from tests.swarm_bed import Swarm

PORT, ADMIN_PORT = 18087, 17451
PASSWORD = CREDENTIALS.partition(":")[2]
WITHIN_S = 90.0
TASKS = 12


def job(name: str, *, poison: bool = False) -> bytes:
    return json.dumps({"name": name, "ms": 300, "poison": poison}).encode()


@contextmanager
def typed_fleet(swarm: Swarm, node: RabbitMq, sink: str) -> Iterator[Typed]:
    """The command line for it, which takes it down at the end."""
    management = f"http://{node.host}:{node.management_port}"
    spec = {
        "fleet": "ware-house",
        "engine": "swarm",
        "swarm": {"port": PORT, "admin_port": ADMIN_PORT, "image": swarm.shoal_image},
        "agents": {
            "worker": {
                "image": swarm.agents_image,
                "command": ["python3", "/agents/worker_agent.py"],
                "environment": {"SINK": sink},
                "queue": "images",
                "scale": {"min": 0, "max": 2, "target": {"queue_depth": 4}},
            }
        },
        "queues": {"images": {"broker": "rabbit", "max_attempts": 2}},
        "brokers": {
            "rabbit": {
                "type": "rabbitmq",
                "url": f"amqp://{node.host}:{node.port}",
                "management_url": management,
                "secret": "RABBITMQ",
            }
        },
        "secrets": {"RABBITMQ": {"environment": "SOURCE_OF_IT"}},
    }
    with tempfile.TemporaryDirectory(prefix="shoal-") as directory:
        home = Path(directory)
        (home / "shoal.yaml").write_text(json.dumps(spec))
        typed = Typed(home, swarm, "shoal.yaml")
        try:
            yield typed
        finally:
            typed("down", "--volumes", "-y", SOURCE_OF_IT=CREDENTIALS)


async def test_a_fleet_on_a_swarm_works_on_a_rabbitmq(swarm: Swarm, tmp_path: Path) -> None:
    """No replica without a task, two where many wait; each task is done once, a poisoned one is buried and can be
    looked at and put back; no service shows the password; `down --volumes` deletes the queues."""
    require_rabbitmq()
    for node in rabbitmq_node(swarm.host):
        broker, sink = OnRabbitMq(tmp_path, node), Sink()
        broker.start()
        try:
            async with sink.listen(swarm.host):
                with typed_fleet(swarm, node, sink.url()) as typed:
                    await work(typed, broker, sink)
                with pytest.raises(NotFound):
                    await broker.admin.peek("images")
        finally:
            await close()
            await broker.queues.close()
            await broker.admin.close()


async def work(typed: Typed, broker: OnRabbitMq, sink: Sink) -> None:
    async def shoal(*words: str) -> str:
        said = await asyncio.to_thread(typed, *words, SOURCE_OF_IT=CREDENTIALS)
        assert PASSWORD not in said
        return said

    async def most_ready() -> bool:
        (agent,) = json.loads(await shoal("status", "-o", "json"))["agents"]
        return agent["ready"] == 2

    async def buried() -> bool:
        (images,) = json.loads(await shoal("queue", "ls", "-o", "json"))
        assert images["broker"] == "rabbit"
        return images["dead"] == 1 and images["waiting"] + images["in_progress"] == 0

    def done() -> list[str]:
        events = [json.loads(line) for line in sink.said()]
        return sorted(event["name"] for event in events if event["event"] == "done")

    await shoal("up", "-d", "-y")
    (agent,) = json.loads(await shoal("status", "-o", "json"))["agents"]
    assert (agent["state"], agent["desired"]) == ("asleep", 0)
    names = [f"task-{number:02}" for number in range(TASKS)]
    with environment(broker.environment("front")):
        await send(broker, *map(job, names), job("poison", poison=True))
    await until(most_ready, "two replicas", WITHIN_S)
    await until(lambda: len(done()) >= TASKS, "the tasks", WITHIN_S)
    await until(buried, "the dead letter", WITHIN_S)
    assert done() == names
    assert "failed 2 of 2 times: ValueError: this task is poison" in await shoal("queue", "peek", "images", "--dead")
    assert "1 dead letter put back" in await shoal("queue", "redrive", "images")
    for words in (("logs",), ("config",), ("plan", "-o", "json")):
        await shoal(*words)
    services = await asyncio.to_thread(inspected, typed)
    assert "ware-house" in services and PASSWORD not in services
    await until(buried, "the dead letter again", WITHIN_S)


def inspected(typed: Typed) -> str:
    """All that Docker shows of the fleet's services."""
    docker = ["docker", "-H", typed.environ["DOCKER_HOST"]]
    ids = run([*docker, "service", "ls", "-q"]).split()
    return run([*docker, "service", "inspect", *ids])
