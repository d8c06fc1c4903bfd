"""A node's root file system: Docker and what it needs, from Debian's packages, beside the host's own system.

Debian 12's own Docker (20.10) refuses tasks with generic resources, so a newer one is taken: sid has 28.5.2, trixie
26.1.5. sid moves on, so `packages.txt` says what was taken.
"""

from __future__ import annotations

import re
from pathlib import Path

from testbed.commands import BedError
from testbed.debian_root import make_root

DOCKER_OF = {"sid": "28.5.2", "trixie": "26.1.5"}
PACKAGES = (
    *("base-files", "bash", "coreutils", "sed", "grep", "busybox"),
    *("docker.io", "docker-cli", "iptables", "iproute2", "util-linux", "mount", "kmod", "tini"),
)


def docker_root(cache: Path, suite: str) -> Path:
    """Where it lies; made if it isn't there, which takes the network and about 20 s.

    Raises BedError where the suite is unknown, or its packages can't be had.
    """
    if suite not in DOCKER_OF:
        raise BedError(f"{suite}: expected one of {', '.join(DOCKER_OF)}")
    root = cache / f"docker-{suite}"
    make_root(root, suite, PACKAGES)
    return root


def docker_version(root: Path) -> str:
    """The version of the Docker in it, such as `28.5.2`."""
    listed = (root / "packages.txt").read_text()
    found = re.search(r"^docker\.io (\S+?)[+~-]", listed, re.MULTILINE)
    if found is None:
        raise BedError(f"{root}: holds no docker.io; remove the directory and try again")
    return found[1]
