"""A node's root file system: Docker and what it needs, from Debian's packages, beside the host's own system.

Debian 12's own Docker (20.10) refuses tasks with generic resources, so a newer one is taken: sid has 28.5.2, trixie
26.1.5. sid moves on, so `packages.txt` says what was taken.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from testbed.commands import BedError, run
from testbed.debian import Apt, unpack, versions

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
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="docker-") as scratch:
            made = Path(scratch) / "root"
            _make(made, Path(scratch) / "apt", suite)
            made.rename(root)
    return root


def docker_version(root: Path) -> str:
    """The version of the Docker in it, such as `28.5.2`."""
    listed = (root / "packages.txt").read_text()
    found = re.search(r"^docker\.io (\S+?)[+~-]", listed, re.MULTILINE)
    if found is None:
        raise BedError(f"{root}: holds no docker.io; remove the directory and try again")
    return found[1]


def _make(root: Path, scratch: Path, suite: str) -> None:
    scratch.mkdir()
    archives = Apt(suite, scratch).download_with_dependencies(PACKAGES)
    for name in ("bin", "sbin", "lib", "lib64"):  # as they are since Debian 12, whatever the order of unpacking
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    unpack(archives, root)
    (root / "packages.txt").write_text(versions(archives))
    _finish(root)
    shutil.rmtree(scratch)


def _finish(root: Path) -> None:
    """What the packages' own scripts would have done, as far as dockerd needs it."""
    for tables in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            _link(root / f"usr/sbin/{tables}{suffix}", "/usr/sbin/xtables-nft-multi")
    if not os.path.lexists(root / "bin/sh"):
        _link(root / "bin/sh", "dash" if (root / "bin/dash").exists() else "bash")
    for name in ("etc", "proc", "sys", "dev", "run", "tmp", "old", "var/lib"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / "var/run", ignore_errors=True)
    _link(root / "var/run", "/run")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    run(["ldconfig", "-r", root])


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
