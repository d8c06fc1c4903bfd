"""A fleet on a real Swarm whose queue is on a RabbitMQ beside it: credentials as a Swarm secret, scaled from zero."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rabbitmq_node import CREDENTIALS, OnRabbitMq, rabbitmq_node, require_rabbitmq
from rabbitmq_on_cluster import spec, work
from typed import Typed

from shoal.errors import NotFound
from shoal.sdk import close
from testbed.commands import run
from testbed.rabbitmq import RabbitMq
from tests.conformance.sink import Sink
from tests.swarm_bed import Swarm

PORT, ADMIN_PORT = 18087, 17451


@contextmanager
def typed_fleet(swarm: Swarm, node: RabbitMq, sink: str) -> Iterator[Typed]:
    """The command line for it, which takes it down at the end."""
    worker = {
        "image": swarm.agents_image,
        "command": ["python3", "/agents/worker_agent.py"],
        "environment": {"SINK": sink},
    }
    own = {"port": PORT, "admin_port": ADMIN_PORT, "image": swarm.shoal_image}
    with tempfile.TemporaryDirectory(prefix="shoal-") as directory:
        home = Path(directory)
        (home / "shoal.yaml").write_text(json.dumps(spec(node, worker, engine="swarm", swarm=own)))
        typed = Typed(home, {"DOCKER_HOST": swarm.endpoint.host}, "shoal.yaml")
        try:
            yield typed
        finally:
            typed("down", "--volumes", "-y", SOURCE_OF_IT=CREDENTIALS)


async def test_a_fleet_on_a_swarm_works_on_a_rabbitmq(swarm: Swarm, tmp_path: Path) -> None:
    """As `rabbitmq_on_cluster` says; `down --volumes` deletes the queues."""
    require_rabbitmq()
    for node in rabbitmq_node(swarm.host):
        broker, sink = OnRabbitMq(tmp_path, node), Sink()
        broker.start()
        try:
            async with sink.listen(swarm.host):
                with typed_fleet(swarm, node, sink.url()) as typed:
                    await work(typed, broker, sink, lambda: inspected(swarm))
                with pytest.raises(NotFound):
                    await broker.admin.peek("images")
        finally:
            await close()
            await broker.queues.close()
            await broker.admin.close()


def inspected(swarm: Swarm) -> str:
    """All that Docker shows of the fleet's services."""
    docker = ["docker", "-H", swarm.endpoint.host]
    ids = run([*docker, "service", "ls", "-q"]).split()
    return run([*docker, "service", "inspect", *ids])
