"""The embedded broker's configuration: who may reach which queue.

nats-server knows nothing of fleets. One user an agent, with permissions made of the queues that the agent declares, is
what keeps an agent out of the queues of others; this is rendered here as a value, the platform writes it and starts
the server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from shoal.core.rabbitmq import rabbitmq_queues
from shoal.core.wiring import CONSUMER, dead_subject_name, stream_name, subject_name
from shoal.spec.model import Agent, Fleet

ADMIN_USER = "_shoal"  # no agent can have this name
MAX_TASK_BYTES = 1024 * 1024
DEAD_LETTER_HEADROOM_BYTES = 64 * 1024  # reason and traceback, so that a task of the largest size can become one


def broker_users(fleet: Fleet) -> tuple[str, ...]:
    """The agents that need a user: those that consume or publish on it, by name. Empty: the fleet needs no broker."""
    outside = rabbitmq_queues(fleet).keys()
    return tuple(sorted(name for name, agent in fleet.agents.items() if used_queues(agent) - outside))


def used_queues(agent: Agent) -> frozenset[str]:
    """The queues that the agent consumes or publishes to."""
    return frozenset((*agent.publishes, *([agent.queue] if agent.queue is not None else ())))


def broker_url(user: str, password: str, host: str, port: int) -> str:
    """`nats://user:password@host:port`, with what needs it quoted. For Shoal itself `user` is `ADMIN_USER`."""
    shown = f"[{host}]" if ":" in host else host
    return f"nats://{quote(user, safe='')}:{quote(password, safe='')}@{shown}:{port}"


def inbox_prefix(user: str) -> str:
    """Under this, and nowhere else, may a user subscribe: answers and tasks reach it there."""
    return f"_INBOX.{user}"


def render_config(
    fleet: Fleet,
    *,
    passwords: Mapping[str, str],
    admin_password: str,
    store_dir: str,
    port: int,
    bind: str = "127.0.0.1",
    monitor_port: int | None = None,
) -> str:
    """The text of `nats.conf` (JSON, which nats-server reads), stable to the byte for equal arguments.

    `passwords` is by agent, for at least `broker_users(fleet)`; they stand in the text in clear, so the file must have
    mode 0600. `store_dir` is absolute. `monitor_port` (always on 127.0.0.1, it asks nobody for a password) is for
    `/healthz` and people; Shoal reads depths through its own connection. Streams may grow to three
    quarters of the free disk, the server's own rule.

    Start: `nats-server -c FILE`. When agents or passwords change, write the file anew and send SIGHUP: users are
    reloaded and nobody else is disconnected. Every other change needs a restart. The streams themselves are made by
    `shoal.sources.jetstream.JetStreamQueues.ensure`. Raises KeyError when a password is missing.
    """
    config: dict[str, Any] = {
        "server_name": f"shoal-{fleet.fleet}",
        "listen": _address(bind, port),
        "max_payload": MAX_TASK_BYTES + DEAD_LETTER_HEADROOM_BYTES,
        "ping_interval": "20s",  # a frozen worker is noticed within a minute, its pull requests with it
        "jetstream": {"store_dir": store_dir, "sync_interval": "always"},
        "authorization": {
            "users": [
                {"user": ADMIN_USER, "password": admin_password},
                *(
                    {
                        "user": name,
                        "password": passwords[name],
                        "permissions": render_permissions(fleet.fleet, name, _on_it(fleet, fleet.agents[name])),
                    }
                    for name in broker_users(fleet)
                ),
            ]
        },
    }
    if monitor_port is not None:
        config["http"] = _address("127.0.0.1", monitor_port)
    return json.dumps(config, indent=2) + "\n"


def render_permissions(fleet: str, name: str, agent: Agent) -> dict[str, Any]:
    """What one agent may publish and subscribe to, as nats-server's `permissions`.

    A consumer may fetch from its queue, ask how the queue is set up and whether a task still is in it, answer for its
    tasks (acknowledge, hand back, keep alive) and write dead letters; a producer may publish. Both may listen below
    their own inbox only: not to the queue's subject, where every task would pass by.
    """
    publish = [subject_name(fleet, queue) for queue in agent.publishes]
    if agent.queue is not None:
        stream = stream_name(fleet, agent.queue)
        publish += [
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}",
            f"$JS.API.CONSUMER.INFO.{stream}.{CONSUMER}",
            f"$JS.API.STREAM.MSG.GET.{stream}",
            f"$JS.ACK.{stream}.{CONSUMER}.>",
            dead_subject_name(fleet, agent.queue),
        ]
    return {
        "publish": {"allow": sorted(set(publish))},
        "subscribe": {"allow": [f"{inbox_prefix(name)}.>"]},
    }


def _on_it(fleet: Fleet, agent: Agent) -> Agent:
    """The agent with those of its queues that this broker holds."""
    outside = rabbitmq_queues(fleet)
    if not outside:
        return agent
    queue = None if agent.queue in outside else agent.queue
    publishes = tuple(name for name in agent.publishes if name not in outside)
    return agent.model_copy(update={"queue": queue, "publishes": publishes})


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
