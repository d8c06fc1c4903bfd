"""The revision of an agent: a hash of its resolved template, so that equal specs are the same revision everywhere.

Only what a replica is made of goes in. The resolved spec is hashed, never what an engine renders from it, so that a
new Shoal, which may render differently, restarts nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from shoal.core.rabbitmq import used_outside
from shoal.core.template import SecretUse, Template
from shoal.spec.model import Fleet

REVISION_LENGTH = 10  # hex digits: 40 bits, and fit for a name on every engine


def template_of(fleet: Fleet, name: str, secret_digests: Mapping[str, str], nonce: str = "") -> Template:
    """The template of one agent. `secret_digests` are HMACs of the contents, by the secret's name; a secret without
    one counts as empty. What has no order to a replica (secrets, calls, queues) is sorted, so that moving a line
    restarts nothing. Raises KeyError for an agent that the fleet does not have.
    """
    agent = fleet.agents[name]
    return Template(
        agent=name,
        kind=agent.kind,
        image=agent.image,
        command=agent.command,
        working_dir=agent.working_dir,
        environment=agent.environment,
        port=agent.port,
        protocol=agent.protocol,
        health=agent.health,
        resources=agent.resources,
        placement=agent.placement,
        stateful=agent.stateful,
        volumes=agent.volumes,
        secrets=tuple(
            SecretUse(secret.name, secret.as_ == "env", secret_digests.get(secret.name, ""))
            for secret in sorted(agent.secrets, key=lambda secret: secret.name)
        ),
        calls=tuple(sorted(agent.calls)),
        queue=agent.queue,
        publishes=tuple(sorted(agent.publishes)),
        stop_grace_period_s=agent.stop_grace_period_s,
        nonce=nonce,
        shm_size_bytes=agent.shm_size_bytes,
        tmpfs=agent.tmpfs,
        outside=tuple(
            f"{queue} {there.url} {there.max_attempts} {there.ack_wait_s:g}"
            for queue, there in sorted(used_outside(fleet, agent).items())
        ),
        user=agent.user,
        cap_add=tuple(sorted(agent.cap_add)),
        read_only=agent.read_only,
    )


def revision_of(template: Template) -> str:
    """Ten hex digits. Fields that hold no value are left out, so that a field which a later Shoal adds, empty unless
    it is used, changes the revision of no agent that does not use it.
    """
    document = {key: value for key, value in _document(template).items() if value not in (None, "", [], {}, False)}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:REVISION_LENGTH]


def _document(template: Template) -> dict[str, Any]:
    return {
        "agent": template.agent,
        "kind": template.kind.value,
        "image": template.image,
        "command": template.command,
        "working_dir": template.working_dir,
        "environment": dict(template.environment),
        "port": template.port,
        "protocol": template.protocol,
        "health": template.health.model_dump(mode="json", exclude_none=True),
        "resources": template.resources.model_dump(mode="json", exclude_none=True),
        "placement": template.placement.model_dump(mode="json", exclude_none=True),
        "stateful": template.stateful,
        "volumes": list(template.volumes),
        "secrets": [[secret.name, secret.as_env, secret.digest] for secret in template.secrets],
        "calls": list(template.calls),
        "queue": template.queue,
        "publishes": list(template.publishes),
        "stop_grace_period_s": template.stop_grace_period_s,
        "nonce": template.nonce,
        "shm_size_bytes": template.shm_size_bytes,
        "tmpfs": list(template.tmpfs),
        "outside": list(template.outside),
        "user": template.user,
        "cap_add": list(template.cap_add),
        "writable": not template.read_only,
    }
