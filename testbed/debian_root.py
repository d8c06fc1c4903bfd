"""A root file system for nodes, from Debian's packages, unpacked beside the host's own system."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from testbed.commands import run
from testbed.debian import Apt, unpack, versions


def make_root(root: Path, suite: str, packages: Sequence[str]) -> None:
    """Makes it where it isn't there, which takes the network and about 20 s. Raises BedError."""
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix="root-") as scratch:
            made = Path(scratch) / "root"
            _make(made, Path(scratch) / "apt", suite, packages)
            made.rename(root)


def _make(root: Path, scratch: Path, suite: str, packages: Sequence[str]) -> None:
    scratch.mkdir()
    archives = Apt(suite, scratch).download_with_dependencies(packages)
    for name in ("bin", "sbin", "lib", "lib64"):  # as they are since Debian 12, whatever the order of unpacking
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    unpack(archives, root)
    (root / "packages.txt").write_text(versions(archives))
    _finish(root)
    shutil.rmtree(scratch)


def _finish(root: Path) -> None:
    """What the packages' own scripts would have done, as far as containers need it."""
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
