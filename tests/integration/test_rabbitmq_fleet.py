"""A fleet with its queue on a RabbitMQ that Shoal does not run: scaled from zero, looked into, ended."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_fleet import nothing_left_running
from queues_broker import environment, send, until
from rabbitmq_node import CREDENTIALS, OnRabbitMq

from shoal.errors import NotFound
from shoal.sdk import close
from testbed.rabbitmq import RabbitMq

PATIENCE_S = 90
PASSWORD = CREDENTIALS.partition(":")[2]
AGENT = """\
from shoal.sdk import worker
@worker(retry_delay_s=0.1)
def handle(task):
    if task.data == b"poison":
        raise ValueError("poison")
    with open("done", "a") as done: done.write(task.id + "\\n")
handle.run()
"""
SPEC = """\
fleet: ware-house
local: {{port: 0}}
agents:
  worker:
    command: [{python}, agent.py]
    environment: {{PYTHONPATH: "{path}"}}
    queue: images
    scale: {{min: 0, max: 2, target: {{queue_depth: 5}}}}
queues:
  images: {{broker: rabbit, max_attempts: 2}}
brokers:
  rabbit: {{type: rabbitmq, url: "{url}", management_url: "http://127.0.0.1:{management}", secret: RABBITMQ}}
secrets:
  RABBITMQ: {{environment: SOURCE_OF_IT}}
"""


class Project:
    """The directory of the file, and a state directory."""

    def __init__(self, directory: Path, node: RabbitMq) -> None:
        self.directory, self.home = directory / "project", directory / "home"
        self.directory.mkdir()
        (self.directory / "agent.py").write_text(AGENT)
        url = f"amqp://127.0.0.1:{node.port}"
        spec = SPEC.format(
            python=sys.executable, path=os.pathsep.join(sys.path), url=url, management=node.management_port
        )
        (self.directory / "shoal.yaml").write_text(spec)

    def shoal(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "shoal.cli", *arguments], cwd=self.directory, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
            env={**os.environ, "SHOAL_HOME": str(self.home), "SOURCE_OF_IT": CREDENTIALS},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def done(self) -> list[str]:
        path = self.directory / "done"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def project(tmp_path: Path, rabbitmq_session: RabbitMq) -> Iterator[Project]:
    with nothing_left_running(tmp_path):
        yield Project(tmp_path, rabbitmq_session)


async def test_a_fleet_works_on_a_rabbitmq(project: Project, tmp_path: Path, rabbitmq_session: RabbitMq) -> None:
    """No replica without a task, one as soon as there is one; `shoal queue` as on NATS; the password is nowhere but in
    the secret; `down --volumes` deletes the queues."""
    broker = OnRabbitMq(tmp_path, rabbitmq_session)
    broker.start()
    try:
        planned = project.shoal("plan")
        assert "brokers.rabbit: RabbitMQ drops no second task of the same id;" in planned
        await asyncio.to_thread(project.shoal, "up", "-d")
        with environment(broker.environment("front")):
            await send(broker, *(f"task-{number}" for number in range(8)), "poison")
        await until(lambda: len(project.done()) == 8, "the tasks", PATIENCE_S)

        async def buried() -> bool:
            listed = json.loads(await asyncio.to_thread(project.shoal, "queue", "ls", "-o", "json"))
            (images,) = listed
            assert (images["name"], images["broker"], images["consumers"]) == ("images", "rabbit", ["worker"])
            return images["dead"] == 1

        await until(buried, "the dead letter", PATIENCE_S)
        assert "failed 2 of 2 times: ValueError: poison" in project.shoal("queue", "peek", "images", "--dead")
        assert "1 dead letter put back" in project.shoal("queue", "redrive", "images")
        for command in ("logs", "plan -o json"):
            project.shoal(*command.split())
        assert PASSWORD.encode() not in (project.home / "ware-house" / "state.db").read_bytes()
        (controller_log,) = project.home.rglob("controller.log")
        assert PASSWORD not in controller_log.read_text()
        await asyncio.to_thread(project.shoal, "down", "--volumes", "-y")
        with pytest.raises(NotFound):
            await broker.admin.peek("images")
    finally:
        await close()
        await broker.queues.close()
        await broker.admin.close()
    assert sorted(project.done()) == sorted(f"task-{number}" for number in range(8))
