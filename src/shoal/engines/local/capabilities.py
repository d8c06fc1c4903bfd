"""What the local engine can do, feature by feature: read by `plan`, the documentation and the conformance suite."""

from __future__ import annotations

from shoal.engines.protocol import Ability, Capabilities, Support

CAPABILITIES = Capabilities(
    engine="local",
    chooses_victims=True,
    runs_images=False,
    table={
        "agents.command": Ability(
            Support.NATIVE, "argv in a process group of its own, no shell; 65,536 files, 4,096 tasks"
        ),
        "agents.image": Ability(Support.IMPOSSIBLE, "give a command, or choose another engine"),
        "agents.working_dir": Ability(Support.NATIVE, "relative to the spec's directory"),
        "agents.user": Ability(Support.IMPOSSIBLE, "replicas run as the user that Shoal runs as"),
        "agents.cap_add": Ability(Support.IMPOSSIBLE, "replicas may what the user may that Shoal runs as"),
        "agents.read_only": Ability(Support.IMPOSSIBLE, "replicas write wherever the user may that Shoal runs as"),
        "agents.environment": Ability(Support.NATIVE, "on a clean base: little of the shell's environment gets in"),
        "agents.port": Ability(Support.BY_SHOAL, "each replica has its own $PORT on 127.0.0.1"),
        "agents.public": Ability(Support.BY_SHOAL),
        "agents.health": Ability(Support.BY_SHOAL),
        "agents.resources.cpu": Ability(Support.ADVISORY, "measured for scaling, neither reserved nor limited"),
        "agents.resources.memory": Ability(
            Support.BY_SHOAL, "not reserved; four looks a second, children included: killed and restarted above it"
        ),
        "agents.resources.gpu": Ability(Support.BY_SHOAL, "exclusive by CUDA_VISIBLE_DEVICES, from NVML or local.gpus"),
        "agents.placement.require": Ability(Support.NATIVE, "compared with local.labels"),
        "agents.placement.prefer": Ability(Support.NATIVE, "there is one machine: nothing to prefer"),
        "agents.placement.spread": Ability(Support.NATIVE, "there is one machine: nothing to spread over"),
        "agents.placement.max_per_node": Ability(Support.ADVISORY, "there is one machine, and it takes them all"),
        "agents.scale": Ability(Support.BY_SHOAL),
        "agents.calls": Ability(Support.ADVISORY, "own listener a caller, but all replicas run as the same user"),
        "agents.depends_on": Ability(Support.BY_SHOAL, "the first start waits for a ready replica of each"),
        "agents.queue": Ability(Support.BY_SHOAL, "embedded NATS on 127.0.0.1"),
        "agents.publishes": Ability(Support.BY_SHOAL, "embedded NATS on 127.0.0.1"),
        "agents.secrets": Ability(Support.BY_SHOAL, "files of mode 0400 in $SHOAL_SECRETS, same user"),
        "agents.secrets.masked": Ability(Support.BY_SHOAL, "in logs"),
        "agents.stateful": Ability(Support.BY_SHOAL, "a directory an ordinal"),
        "agents.volumes": Ability(
            Support.ADVISORY, "kept, but not mounted at PATH: $SHOAL_VOLUME_<NAME> says where it is, here and elsewhere"
        ),
        "agents.volumes.ro": Ability(Support.ADVISORY, "replicas run as the user who owns it"),
        "agents.tmpfs": Ability(
            Support.ADVISORY,
            "a directory in memory, if the machine has a place there, but not mounted at PATH, nor limited: "
            "$SHOAL_TMPFS_<PATH> says where it is, here and elsewhere",
        ),
        "agents.shm_size": Ability(
            Support.ADVISORY, "the machine's own /dev/shm: replicas start only if it is large enough, and may use more"
        ),
        "agents.schedule": Ability(Support.BY_SHOAL),
        "agents.timeout": Ability(Support.BY_SHOAL, "of each attempt"),
        "agents.retries": Ability(Support.BY_SHOAL),
        "agents.stop_grace_period": Ability(Support.BY_SHOAL, "SIGTERM to the process group, then SIGKILL"),
    },
)
