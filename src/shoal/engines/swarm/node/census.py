"""Which of a node's containers are replicas of the fleet, read from what Docker lists. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shoal.engines.swarm import names
from shoal.engines.swarm.node.health import Check
from shoal.engines.swarm.render import GPU_VARIABLE


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a run of a job is over, counted from its container's creation, and what it then has to end in."""

    after_s: float
    grace_s: float

    @classmethod
    def parse(cls, label: str) -> Deadline | None:
        """Of the label `shoal.timeout`; `None` for who may run on. Raises ValueError."""
        if not label:
            return None
        try:
            values = json.loads(label)
            return cls(float(values["after_s"]), float(values["grace_s"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{label!r} is no deadline") from error


@dataclass(frozen=True, slots=True)
class Found:
    """A container of an agent. `host` is its address in the fleet's network; `created_at` epoch seconds. Who has no
    `check` is not probed, who has no `deadline` may run on."""

    container: str
    task: str
    created_at: float
    host: str | None
    check: Check | None
    deadline: Deadline | None = None
    has_gpus: bool = False


def devices_of(inspected: Mapping[str, Any]) -> tuple[str, ...]:
    """The GPUs that Swarm handed out to a container."""
    variables: Sequence[str] = inspected["Config"].get("Env") or ()
    handed = next((each for each in variables if each.startswith(f"{GPU_VARIABLE}=")), "")
    return tuple(filter(None, handed.partition("=")[2].split(",")))


def read_container(listed: Mapping[str, Any], network: str) -> Found | None:
    """`None` for what is no replica. Raises ValueError for a label that can't be read."""
    labels: Mapping[str, str] = listed.get("Labels") or {}
    if names.AGENT not in labels or names.TASK not in labels:
        return None
    networks: Mapping[str, Any] = listed.get("NetworkSettings", {}).get("Networks") or {}
    address: str = networks.get(network, {}).get("IPAddress") or ""
    return Found(
        container=listed["Id"],
        task=labels[names.TASK],
        created_at=float(listed["Created"]),
        host=address or None,
        check=Check.parse(labels.get(names.HEALTH, "")),
        deadline=Deadline.parse(labels.get(names.TIMEOUT, "")),
        has_gpus=names.GPUS in labels,
    )
