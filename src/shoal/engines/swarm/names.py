"""What things are called on a Swarm, and the labels by which a fleet finds its own again.

Names of fleets, agents and volumes have no `_`, so that it parts them and no two fleets can meet in a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum

LONGEST = 63  # of a service's name, which is a name in DNS too

FLEET = "shoal.fleet"
ROLE = "shoal.role"
AGENT = "shoal.agent"
REVISION = "shoal.revision"
ORDINAL = "shoal.ordinal"
RUN = "shoal.run"
HEALTH = "shoal.health"
PORT = "shoal.port"
TIMEOUT = "shoal.timeout"
GPUS = "shoal.gpus"
MEMORY = "shoal.memory"
DIGEST = "shoal.digest"  # the HMAC of what a secret of the fleet's agents holds
RETRIES = "shoal.retries"
STARTED = "shoal.started"
NODE = "shoal.node"
STATEFUL = "shoal.stateful"

GATEWAY_HOST = "shoal-gateway"
CONTROLLER_HOST = "shoal-controller"
BROKER_HOST = "shoal-broker"
NODE_HOST = "shoal-node"


TASK = "com.docker.swarm.task.id"  # Swarm's own, of each of its containers


class Role(StrEnum):
    """What an object is for."""

    REVISION = "revision"  # replicas of a stateless agent; else what ordinals and runs are made from, itself empty
    ORDINAL = "ordinal"
    RUN = "run"
    GATEWAY = "gateway"
    CONTROLLER = "controller"
    BROKER = "broker"
    NODE = "node"
    STATE = "state"
    NETWORK = "network"
    CONFIG = "config"
    SECRET = "secret"
    VOLUME = "volume"
    SWEEP = "sweep"  # of volumes, once everything else is gone
    ENDED = "ended"  # why a node's agent ended a run, which nobody else remembers
    PIN = "pin"  # on which node an identity has its volumes


def object_name(fleet: str, *parts: str) -> str:
    """`fleet_part_part`; where that is too long, its end is a hash of the whole."""
    name = "_".join((fleet, *parts))
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 11]}_{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def own_name(fleet: str, what: str) -> str:
    """Of what Shoal runs itself: `fleet_shoal-gateway`. No revision, ordinal or run is called so."""
    return object_name(fleet, f"shoal-{what}")


def fleet_labels(fleet: str, role: Role, **more: str) -> dict[str, str]:
    """The labels of one object; the keys of `more` are given without `shoal.`."""
    return {FLEET: fleet, ROLE: role.value, **{f"shoal.{key}": value for key, value in more.items()}}


def secret_name(fleet: str, name: str, digest: str) -> str:
    """A secret's, by the HMAC of its content, so that another content is another secret."""
    return object_name(fleet, name, digest[:12])


def replica_id(agent: str, task: str, ordinal: str | None) -> str:
    """Of one life, which is a task: `web-3kx9…` or `stock-0.3kx9…`; the same as SHOAL_REPLICA in the container."""
    return f"{agent}-{task[:10]}" if ordinal is None else f"{agent}-{ordinal}.{task[:10]}"


def role_of(labels: Mapping[str, str]) -> str:
    """`""` for what is not ours."""
    return labels.get(ROLE, "")
