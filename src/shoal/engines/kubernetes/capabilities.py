"""What Kubernetes can do, and what Shoal does in its stead: read by `plan`, documentation and conformance suite."""

from __future__ import annotations

from shoal.engines.protocol import Ability, Capabilities, Support

_BROKER = "embedded NATS as a StatefulSet with a volume"

CAPABILITIES = Capabilities(
    engine="kubernetes",
    chooses_victims=True,
    runs_images=True,
    table={
        "agents.command": Ability(Support.NATIVE, "argv in a container, no shell"),
        "agents.image": Ability(Support.NATIVE, "pulled by a node that does not have it, whatever its tag"),
        "agents.working_dir": Ability(Support.NATIVE, "a path in the container"),
        "agents.user": Ability(Support.NATIVE, "by number; without it nobody (65534), whatever the image says"),
        "agents.cap_add": Ability(Support.NATIVE, "the namespace's Pod Security Standard may refuse it"),
        "agents.read_only": Ability(Support.NATIVE),
        "agents.environment": Ability(Support.NATIVE),
        "agents.port": Ability(Support.NATIVE, "each pod has its own address"),
        "agents.public": Ability(Support.BY_SHOAL, "the gateway's Service"),
        "agents.health": Ability(Support.NATIVE, "probes, of whole seconds"),
        "agents.resources.cpu": Ability(Support.NATIVE, "requested, not limited"),
        "agents.resources.memory": Ability(Support.NATIVE, "requested, and the limit"),
        "agents.resources.gpu": Ability(Support.NATIVE, "nvidia.com/gpu of the device plugin"),
        "agents.placement.require": Ability(Support.NATIVE, "labels of nodes; taints of the same key are tolerated"),
        "agents.placement.prefer": Ability(Support.NATIVE),
        "agents.placement.spread": Ability(Support.NATIVE),
        "agents.placement.max_per_node": Ability(Support.NATIVE, "by a topology spread constraint"),
        "agents.scale": Ability(Support.BY_SHOAL, "which pods leave is chosen, and they are drained before"),
        "agents.calls": Ability(Support.NATIVE, "network policies, where the cluster enforces them"),
        "agents.depends_on": Ability(Support.BY_SHOAL, "the first start waits for a ready replica of each"),
        "agents.queue": Ability(Support.BY_SHOAL, _BROKER),
        "agents.publishes": Ability(Support.BY_SHOAL, _BROKER),
        "agents.secrets": Ability(Support.NATIVE, "files in $SHOAL_SECRETS, of mode 0440 for the container's group"),
        "agents.secrets.masked": Ability(Support.BY_SHOAL, "in logs, by the controller"),
        "agents.stateful": Ability(Support.NATIVE, "one StatefulSet, replaced by its partition"),
        "agents.volumes": Ability(Support.NATIVE, "claims of ReadWriteOnce: replicas that share one are on one node"),
        "agents.volumes.ro": Ability(Support.NATIVE),
        "agents.tmpfs": Ability(Support.NATIVE),
        "agents.shm_size": Ability(Support.NATIVE),
        "agents.schedule": Ability(Support.BY_SHOAL, "each run is a Job"),
        "agents.timeout": Ability(Support.NATIVE, "of each attempt"),
        "agents.retries": Ability(Support.NATIVE, "ten seconds and more between attempts"),
        "agents.stop_grace_period": Ability(Support.NATIVE, "SIGTERM to the program, then SIGKILL"),
    },
)
