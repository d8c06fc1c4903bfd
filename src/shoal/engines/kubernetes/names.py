"""What things are called on Kubernetes, and the labels by which a fleet finds its own again.

A namespace is of one fleet, so that agents have their own names there, network policies say what they mean, and who may
see a fleet is who may see its namespace.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

LONGEST = 52  # of what pods are made from: the names of those are up to 11 letters longer, and names in DNS

FLEET = "shoal.dev/fleet"
ROLE = "shoal.dev/role"
AGENT = "shoal.dev/agent"
REVISION = "shoal.dev/revision"
RUN = "shoal.dev/run"
LEADER = "shoal.dev/leader"  # of the controller's pods, the one that acts
# Annotations.
DIGEST = "shoal.dev/digest"  # the HMAC of what a secret of the fleet's agents holds; a letter too long for a label
SECRET_NAME = "shoal.dev/secret"  # as its agents know it
WANTED = "shoal.dev/wanted"  # when a secret's content was last given: epoch seconds
CONTENT = "shoal.dev/content"  # the hash of what was applied, by which what is unchanged is known
PORT = "shoal.dev/port"
RETRIES = "shoal.dev/retries"
STARTED = "shoal.dev/started"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

GATEWAY = "shoal-gateway"
CONTROLLER = "shoal-controller"
BROKER = "shoal-broker"
STATE = "shoal-state"
KEY = "shoal-key"  # of the HMACs


class Role(StrEnum):
    """What an object is for."""

    REVISION = "revision"  # replicas of a stateless agent
    TEMPLATE = "template"  # of a stateful agent or a job: what replicas or runs of a revision are made from
    STATEFUL = "stateful"
    RUN = "run"
    AUTOSCALER = "autoscaler"  # sets the count of an agent's replicas
    AGENT = "agent"  # of all revisions of one: service account, policy
    GATEWAY = "gateway"
    CONTROLLER = "controller"
    BROKER = "broker"
    STATE = "state"
    VOLUME = "volume"
    SECRET = "secret"
    FLEET = "fleet"  # of the whole: policies, namespace


def object_name(*parts: str) -> str:
    """`part-part`; where that is too long, its end is a hash of the whole."""
    name = "-".join(parts)
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 11].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def fleet_labels(fleet: str, role: Role, **more: str) -> dict[str, str]:
    """The labels of one object, with those that Kubernetes recommends; the keys of `more` are given without
    `shoal.dev/`."""
    labels = {
        "app.kubernetes.io/managed-by": "shoal",
        "app.kubernetes.io/part-of": fleet,
        "app.kubernetes.io/name": more.get("agent", f"shoal-{role.value}"),
        FLEET: fleet,
        ROLE: role.value,
    }
    return labels | {f"shoal.dev/{key}": value for key, value in more.items()}


def secret_name(name: str, digest: str) -> str:
    """A secret's, by its name and the HMAC of its content, so that another content is another secret, and so is one
    that differs from it in what names of objects don't have: `KEY_A` from `key-a`."""
    both = hashlib.sha256(f"{name} {digest}".encode()).hexdigest()
    return object_name(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "secret", both[:16])


def role_of(item: Mapping[str, Any]) -> str:
    """`""` for what is not ours."""
    return labels_of(item).get(ROLE, "")


def labels_of(item: Mapping[str, Any]) -> Mapping[str, str]:
    """Of an object."""
    return item["metadata"].get("labels") or {}
