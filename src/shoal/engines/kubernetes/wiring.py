"""By which addresses agents reach gateways and the broker, and what the broker is told of them. Pure: `password` gives
a user's, which only who has the fleet's seed knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from shoal.core.broker import ADMIN_USER, broker_url, broker_users, render_config
from shoal.core.rabbitmq import rabbitmq_queues
from shoal.core.wiring import Wiring, environment_for
from shoal.engines.kubernetes.names import BROKER, Role, fleet_labels, object_name
from shoal.engines.kubernetes.render_own import BROKER_PORT, CALLS, CALLS_PORT, PUBLIC_PORT, STATE_DIRECTORY
from shoal.engines.kubernetes.render_pod import Object
from shoal.spec.model import Fleet

Password = Callable[[str], str]


def wiring_of(fleet: Fleet, password: Password) -> Wiring:
    """All but where the outside finds a gateway."""
    callers = sorted(name for name, agent in fleet.agents.items() if agent.calls)
    users = broker_users(fleet)
    return Wiring(
        bind="0.0.0.0",
        public_port=PUBLIC_PORT,
        internal_port=CALLS_PORT,
        call_url=dict.fromkeys(callers, f"http://{CALLS}:{CALLS_PORT}"),
        broker_url={name: broker_url(name, password(name), BROKER, BROKER_PORT) for name in users},
        broker_admin_url=broker_url(ADMIN_USER, password(""), BROKER, BROKER_PORT) if users else None,
    )


def environments_of(fleet: Fleet) -> dict[str, dict[str, str]]:
    """What Shoal adds for each agent, by name. Passwords, which only the Secrets of private variables hold, have a
    stand-in: an agent's objects are the same with any."""
    wiring, outside = wiring_of(fleet, unknown_password), rabbitmq_queues(fleet)
    return {
        name: environment_for(fleet.fleet, name, agent, wiring, outside) for name, agent in fleet.agents.items()
    }  # fmt: skip


def unknown_password(user: str) -> str:
    """Stands for the one that the user has."""
    return "unknown"


def render_broker_secret(fleet: Fleet, password: Password) -> Object:
    """The broker's configuration, by its content: other users are another one, and a start anew."""
    text = render_config(
        fleet,
        passwords={name: password(name) for name in broker_users(fleet)},
        admin_password=password(""),
        store_dir=f"{STATE_DIRECTORY}/broker",
        port=BROKER_PORT,
        bind="0.0.0.0",
    )
    name = object_name(BROKER, hashlib.sha256(text.encode()).hexdigest()[:12])
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": fleet_labels(fleet.fleet, Role.BROKER)},
        "stringData": {"nats.conf": text},
    }
