"""By which addresses agents reach the gateway and the broker on one engine, and the variables that tell them.

An engine's platform makes the `Wiring`; everything that an agent is told follows from it here, the same on all engines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.core.rabbitmq import RabbitMqQueue, rabbitmq_variables
from shoal.spec.model import Agent

CONSUMER = "workers"  # the one durable consumer of every queue


@dataclass(frozen=True, slots=True)
class Wiring:
    """Addresses. `call_url` is by calling agent: the base under which it reaches the agent `b` as `<base>/b`.

    `public_url` is where the outside finds a gateway, if that is not where it binds. `caller_ports` is by calling
    agent where each has a listener of its own, those included that called before; `broker_url` is by agent, with
    credentials that reach only the queues that it declares; `broker_admin_url` is Shoal's own. `gateways` are the names
    of those that were started, where that is known before they call.
    """

    bind: str
    public_port: int
    public_url: str | None = None
    internal_port: int | None = None
    caller_ports: Mapping[str, int] = field(default_factory=dict[str, int])
    call_url: Mapping[str, str] = field(default_factory=dict[str, str])
    broker_url: Mapping[str, str] = field(default_factory=dict[str, str])
    broker_admin_url: str | None = None
    gateways: tuple[str, ...] = ()


def variable_name(name: str) -> str:
    """An agent's or queue's name as part of a variable: `image-processing` is `IMAGE_PROCESSING`."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def stream_name(fleet: str, queue: str) -> str:
    """The JetStream stream of a queue; its dead letters are in `<stream>_DEAD`."""
    return f"{variable_name(fleet)}_{variable_name(queue)}"


def dead_stream_name(fleet: str, queue: str) -> str:
    """The JetStream stream of a queue's dead letters."""
    return f"{stream_name(fleet, queue)}_DEAD"


def subject_name(fleet: str, queue: str) -> str:
    """The subject under which a queue's tasks are published."""
    return f"shoal.{fleet}.{queue}"


def dead_subject_name(fleet: str, queue: str) -> str:
    """The subject under which a queue's dead letters are published."""
    return f"{subject_name(fleet, queue)}.dead"


def environment_for(
    fleet: str, name: str, agent: Agent, wiring: Wiring, outside: Mapping[str, RabbitMqQueue] | None = None
) -> dict[str, str]:
    """The variables that Shoal adds for one agent: who it is, whom it may call, its queues. `outside` are the fleet's
    queues on brokers that Shoal does not run, by name."""
    environment = {"SHOAL_FLEET": fleet, "SHOAL_AGENT": name}
    base = wiring.call_url.get(name)
    if base is not None:
        for callee in agent.calls:
            environment[f"SHOAL_URL_{variable_name(callee)}"] = f"{base}/{callee}"
    own = (agent.queue,) if agent.queue else ()
    for queue in dict.fromkeys(own + agent.publishes):
        prefix = f"SHOAL_QUEUE_{variable_name(queue)}"
        for key, value in _queue_variables(fleet, name, queue, wiring, outside or {}).items():
            environment[f"{prefix}_{key}"] = value
    if agent.queue:
        environment["SHOAL_QUEUE"] = agent.queue
        environment["SHOAL_STOP_GRACE_PERIOD_S"] = f"{agent.stop_grace_period_s:g}"
    return environment


def _queue_variables(
    fleet: str, name: str, queue: str, wiring: Wiring, outside: Mapping[str, RabbitMqQueue]
) -> Mapping[str, str]:
    there = outside.get(queue)
    if there is not None:
        return rabbitmq_variables(fleet, queue, there)
    url = wiring.broker_url.get(name)
    if url is None:
        return {}
    return {
        "URL": url,
        "STREAM": stream_name(fleet, queue),
        "CONSUMER": CONSUMER,
        "SUBJECT": subject_name(fleet, queue),
    }
