"""What Docker Swarm can do, and what Shoal does in its stead: read by `plan`, the documentation and the conformance
suite.
"""

from __future__ import annotations

from shoal.engines.protocol import Ability, Capabilities, Support

_EACH_ALONE = "of a stateless agent: each identity is a service of its own"

CAPABILITIES = Capabilities(
    engine="swarm",
    chooses_victims=False,
    runs_images=True,
    table={
        "agents.command": Ability(
            Support.NATIVE, "argv in a container, no shell; 4,096 tasks; files as many as the node's Docker allows"
        ),
        "agents.image": Ability(Support.NATIVE),
        "agents.working_dir": Ability(Support.NATIVE, "a path in the container"),
        "agents.user": Ability(Support.NATIVE),
        "agents.cap_add": Ability(Support.NATIVE),
        "agents.read_only": Ability(Support.NATIVE),
        "agents.environment": Ability(Support.NATIVE),
        "agents.port": Ability(Support.NATIVE, "each replica has its own address in the fleet's network"),
        "agents.public": Ability(Support.BY_SHOAL, "a gateway on every node"),
        "agents.health": Ability(Support.BY_SHOAL, "probed on each node"),
        "agents.resources.cpu": Ability(Support.NATIVE, "reserved, not limited"),
        "agents.resources.memory": Ability(Support.NATIVE, "reserved, and the limit"),
        "agents.resources.gpu": Ability(
            Support.NATIVE, "the generic resource `gpu` of nodes; CUDA_VISIBLE_DEVICES is what Swarm hands out"
        ),
        "agents.placement.require": Ability(Support.NATIVE, "labels of nodes"),
        "agents.placement.prefer": Ability(Support.IMPOSSIBLE, "Swarm has no preference for a label's value"),
        "agents.placement.spread": Ability(Support.NATIVE, _EACH_ALONE),
        "agents.placement.max_per_node": Ability(Support.NATIVE, _EACH_ALONE),
        "agents.scale": Ability(Support.BY_SHOAL, "Swarm chooses who leaves, and waits 2 s before it stops them"),
        "agents.calls": Ability(
            Support.ADVISORY,
            "callers are known by their address, but replicas reach each other directly in the fleet's network",
        ),
        "agents.depends_on": Ability(Support.BY_SHOAL, "the first start waits for a ready replica of each"),
        "agents.queue": Ability(Support.BY_SHOAL, "embedded NATS as a service with a volume on one node"),
        "agents.publishes": Ability(Support.BY_SHOAL, "embedded NATS as a service with a volume on one node"),
        "agents.secrets": Ability(Support.NATIVE, "files of mode 0400 in $SHOAL_SECRETS"),
        "agents.secrets.masked": Ability(Support.BY_SHOAL, "in logs, by the controller, which is given them"),
        "agents.stateful": Ability(Support.BY_SHOAL, "a service an ordinal, which stays on the node of its volumes"),
        "agents.volumes": Ability(Support.NATIVE, "a volume is of one node: replicas elsewhere have their own"),
        "agents.volumes.ro": Ability(Support.NATIVE),
        "agents.tmpfs": Ability(Support.NATIVE),
        "agents.shm_size": Ability(Support.NATIVE),
        "agents.schedule": Ability(Support.BY_SHOAL, "each run is a replicated job"),
        "agents.timeout": Ability(
            Support.BY_SHOAL,
            "of each attempt, kept on its node; who then ends by 0 is not tried again",
        ),
        "agents.retries": Ability(Support.NATIVE),
        "agents.stop_grace_period": Ability(Support.NATIVE, "SIGTERM to the program, then SIGKILL"),
    },
)
