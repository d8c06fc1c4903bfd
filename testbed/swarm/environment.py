"""Which bed is meant, by the environment: for the commands and for tests.

SHOAL_BED_NAME     shoal                    another one, for a second bed beside the first
SHOAL_BED_NETWORK  192.168.78               the first three numbers of its network; another one for each bed
SHOAL_BED_CACHE    ~/.cache/shoal-testbed   where all of it lies
SHOAL_BED_SUITE    sid                      Debian's suite that Docker is taken from; or trixie
"""

from __future__ import annotations

import os
from pathlib import Path

from testbed.swarm.bed import Bed


def cache_directory() -> Path:
    """Where downloads, layers and the nodes' disks are."""
    return Path(os.environ.get("SHOAL_BED_CACHE", "~/.cache/shoal-testbed")).expanduser().resolve()


def bed_from_environment() -> Bed:
    """Raises BedError where a name or a network is none."""
    return Bed(
        name=os.environ.get("SHOAL_BED_NAME", "shoal"),
        network=os.environ.get("SHOAL_BED_NETWORK", "192.168.78"),
        cache=cache_directory(),
        suite=os.environ.get("SHOAL_BED_SUITE", "sid"),
    )
