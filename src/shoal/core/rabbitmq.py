"""Queues on a RabbitMQ that somebody else runs: what they are called there, how they are made, what agents are told.

Each queue is a quorum queue, and so are its dead letters. Both are reached by one exchange of the fleet, by their own
names, so that rights for everything that begins with the exchange's name are all that is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from shoal.spec.model import Agent, Broker, Fleet

# Attempts are counted by workers, since a queue's arguments can't be changed and `max_attempts` can. Without a limit of
# its own RabbitMQ 4 would take 20, and move tasks to the dead letters before their time.
DELIVERY_LIMIT = 1_000_000
DEFAULT_CREDENTIALS = "guest:guest"
_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}


@dataclass(frozen=True, slots=True)
class RabbitMqQueue:
    """A queue of the fleet, and how it is reached: `url` without credentials, which are in `secret` if there is one."""

    broker: str
    url: str
    secret: str | None
    max_attempts: int
    ack_wait_s: float


@dataclass(frozen=True, slots=True)
class RabbitMqAddress:
    """Where a RabbitMQ and its management API are, and who asks; `credentials` is `user:password`."""

    url: str
    management_url: str
    credentials: str = field(repr=False)


def rabbitmq_queues(fleet: Fleet) -> dict[str, RabbitMqQueue]:
    """The queues of the fleet that are on a RabbitMQ, by name."""
    found: dict[str, RabbitMqQueue] = {}
    for name, queue in fleet.queues.items():
        broker = fleet.brokers.get(queue.broker)
        if broker is not None and broker.url is not None:
            found[name] = RabbitMqQueue(queue.broker, broker.url, broker.secret, queue.max_attempts, queue.ack_wait_s)
    return found


def used_outside(fleet: Fleet, agent: Agent) -> dict[str, RabbitMqQueue]:
    """Those of them that the agent consumes or publishes to."""
    used = {*agent.publishes, agent.queue}
    return {name: queue for name, queue in rabbitmq_queues(fleet).items() if name in used}


def exchange_name(fleet: str) -> str:
    """Of the exchange that leads to all queues of the fleet."""
    return f"shoal.{fleet}"


def queue_name(fleet: str, queue: str) -> str:
    """Of the queue on the broker, and its routing key."""
    return f"shoal.{fleet}.{queue}"


def dead_queue_name(fleet: str, queue: str) -> str:
    """Of the queue of the dead letters, and its routing key."""
    return f"{queue_name(fleet, queue)}.dead"


def render_arguments(fleet: str, queue: str) -> dict[str, Any]:
    """Those of a queue. What RabbitMQ itself takes out of it goes to the dead letters, and is kept until it is there:
    its default strategy would lose it in a crash."""
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": exchange_name(fleet),
        "x-dead-letter-routing-key": dead_queue_name(fleet, queue),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # which that strategy asks for; there is no limit that could be reached
    }


def render_dead_arguments() -> dict[str, Any]:
    """Those of the queue of the dead letters, from which nothing is ever taken but by people."""
    return {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}


def rabbitmq_variables(fleet: str, name: str, queue: RabbitMqQueue) -> Mapping[str, str]:
    """What an agent is told of the queue, by the part of the variable after `SHOAL_QUEUE_<QUEUE>_`."""
    variables = {
        "URL": queue.url,
        "EXCHANGE": exchange_name(fleet),
        "NAME": queue_name(fleet, name),
        "MAX_ATTEMPTS": str(queue.max_attempts),
        "ACK_WAIT_S": f"{queue.ack_wait_s:g}",
    }
    return variables if queue.secret is None else {**variables, "SECRET": queue.secret}


def management_url(broker: Broker) -> str:
    """Where the broker's HTTP API is: as the file says, else on RabbitMQ's own port of the same host."""
    if broker.management_url is not None:
        return broker.management_url.rstrip("/")
    split = urlsplit(broker.url or "")
    scheme, port = _PORTS[split.scheme]
    host = f"[{split.hostname}]" if ":" in (split.hostname or "") else split.hostname
    return f"{scheme}://{host}:{port}"


def vhost_of(url: str) -> str:
    """The virtual host that an AMQP URL names."""
    return unquote(urlsplit(url).path[1:]) or "/"
