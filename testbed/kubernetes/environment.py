"""Which bed is meant, by the environment: for the commands, for tests and for the bed's own agents.

SHOAL_KUBE_BED_NAME      kube                     another one, for a second bed beside the first
SHOAL_KUBE_BED_NETWORK   192.168.77               the first three numbers of its network; another one for each bed
SHOAL_BED_CACHE          ~/.cache/shoal-testbed   where all of it lies
"""

from __future__ import annotations

import os

from testbed.kubernetes.bed import KubeBed
from testbed.swarm.environment import cache_directory


def bed_from_environment() -> KubeBed:
    """Raises BedError where a name or a network is none."""
    return KubeBed(
        name=os.environ.get("SHOAL_KUBE_BED_NAME", "kube"),
        network=os.environ.get("SHOAL_KUBE_BED_NETWORK", "192.168.77"),
        cache=cache_directory(),
    )


def environment_of(bed: KubeBed) -> dict[str, str]:
    """What names this bed to another process."""
    return {
        "SHOAL_KUBE_BED_NAME": bed.name,
        "SHOAL_KUBE_BED_NETWORK": bed.network,
        "SHOAL_BED_CACHE": str(bed.cache),
    }
