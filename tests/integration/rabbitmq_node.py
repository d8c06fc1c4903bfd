"""A real RabbitMQ for tests, and one fleet's queues on it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from queues_broker import a_fleet

from shoal.api.queue_admins import QueueAdmin
from shoal.core.rabbitmq import RabbitMqAddress, dead_queue_name, exchange_name, rabbitmq_queues
from shoal.core.wiring import Wiring, environment_for
from shoal.sdk.rabbitmq.wire import properties_of
from shoal.sources.amqp import Amqp
from shoal.sources.rabbitmq import RabbitMqQueues
from shoal.sources.rabbitmq_admin import RabbitMqAdmin
from shoal.spec.model import Fleet
from testbed.rabbitmq import MISSING, RabbitMq, find_rabbitmq
from tests.required import skip_without

SETTLES_S = 1.0  # the node's figures are fresher than those of others, see `testbed.rabbitmq`
CREDENTIALS = "shoal:s3cret of shoal"  # of the user with the rights that the documentation asks for, and no more


def require_rabbitmq() -> None:
    """Skips where there is none; fails where there must be one."""
    if find_rabbitmq() is None:
        skip_without("rabbitmq", MISSING)


def rabbitmq_node(host: str = "127.0.0.1") -> Iterator[RabbitMq]:
    """One that begins to start; nothing of it runs after. For a fixture of the session."""
    installed = find_rabbitmq()
    assert installed is not None
    with tempfile.TemporaryDirectory(prefix="shoal-rmq-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        node = RabbitMq(Path(directory), installed, host)
        node.start(wait=False)
        try:
            yield node
        finally:
            node.close()


class OnRabbitMq:
    """One fleet's queues on the node; `close` deletes them."""

    name = "rabbitmq"
    deduplicates = False

    def __init__(
        self, directory: Path, node: RabbitMq, *, ack_wait_s: float = 2.0, max_attempts: int = 3, grace_s: float = 10.0
    ) -> None:
        self.directory, self.node = directory, node
        self.url = f"amqp://{node.host}:{node.port}"
        broker = {"type": "rabbitmq", "url": self.url, "secret": "RABBITMQ"}
        self.fleet: Fleet = a_fleet(ack_wait_s=ack_wait_s, max_attempts=max_attempts, grace_s=grace_s, broker=broker)
        self.address = RabbitMqAddress(self.url, f"http://{node.host}:{node.management_port}", CREDENTIALS)
        self.queues = RabbitMqQueues(self.address, self.fleet.fleet, settles_s=SETTLES_S)
        self.admin = RabbitMqAdmin(self.address, self.fleet.fleet)
        secrets = directory / "secrets"
        secrets.mkdir(exist_ok=True)
        (secrets / "RABBITMQ").write_text(CREDENTIALS)

    def start(self) -> None:
        if not self.node.runs:
            self.node.start(wait=False)
        self.node.wait_ready()

    def kill(self) -> None:
        self.node.kill()

    async def ensure(self) -> None:
        await self.queues.ensure(self.fleet.queues)

    async def close(self) -> None:
        if not self.node.runs:
            await asyncio.to_thread(self.start)
        await self.queues.remove()
        await self.queues.close()
        await self.admin.close()

    def environment(self, agent: str) -> dict[str, str]:
        wiring = Wiring(bind="127.0.0.1", public_port=1)
        told = environment_for(self.fleet.fleet, agent, self.fleet.agents[agent], wiring, rabbitmq_queues(self.fleet))
        return {**told, "SHOAL_SECRETS": str(self.directory / "secrets")}

    def masked_admin(self, mask: Callable[[str], str]) -> QueueAdmin:
        return RabbitMqAdmin(self.address, self.fleet.fleet, mask)

    async def write_dead(self, queue: str, headers: Mapping[str, str], payload: bytes) -> None:
        amqp = Amqp(self.url, CREDENTIALS)
        own = dict(headers)
        message_id = own.pop("Nats-Msg-Id", "")
        async with amqp.channel(confirms=True) as channel:
            publish = partial(channel.basic_publish, payload, exchange=exchange_name(self.fleet.fleet), mandatory=True)
            await publish(
                routing_key=dead_queue_name(self.fleet.fleet, queue), properties=properties_of(message_id, own)
            )
        await amqp.close()
