"""What a replica of one revision is made of: the part of an agent's spec whose change needs new replicas.

Scale, limits and routes are not in it, nor anything rendered, so that neither a wider scale nor a new Shoal restarts
a replica.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shoal.spec.model import Health, Kind, Placement, Resources


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A secret by name and by the HMAC of its content, never by its content."""

    name: str
    as_env: bool
    digest: str


@dataclass(frozen=True, slots=True)
class Template:
    """One agent's resolved template. `nonce` makes an equal template a new revision (`restart`, `up --pull`).

    `outside` says of each of its queues on a broker that Shoal does not run where it is and how it is worked on, which
    replicas are told at their start.
    """

    agent: str
    kind: Kind
    image: str | None
    command: tuple[str, ...] | None
    working_dir: str | None
    environment: Mapping[str, str]
    port: int | None
    protocol: str
    health: Health
    resources: Resources
    placement: Placement
    stateful: bool
    volumes: tuple[str, ...]
    secrets: tuple[SecretUse, ...]
    calls: tuple[str, ...]
    queue: str | None
    publishes: tuple[str, ...]
    stop_grace_period_s: float
    nonce: str = ""
    shm_size_bytes: int | None = None
    tmpfs: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    user: str | None = None
    cap_add: tuple[str, ...] = ()
    read_only: bool = True
