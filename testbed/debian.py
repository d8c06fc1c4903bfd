"""Debian's packages, unpacked without being installed, from the mirror that this machine's apt uses.

A mirror keeps one version of a package a suite, so packages are named with their suite, not with a version; what was
unpacked is written down in `packages.txt` beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from testbed.commands import BedError, run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = frozenset({"bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"})


def mirror() -> str:
    """The address of Debian's archive, as apt has it."""
    lines = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]).splitlines()
    for line in lines:
        suite, _, address = line.partition(" ")
        if suite in SUITES and "debian" in address:
            return address
    raise BedError("apt knows no mirror of Debian: expected an entry for bookworm in /etc/apt/sources.list*")


class Apt:
    """apt with lists, cache and status of its own, for one suite: the machine's own stay as they are."""

    def __init__(self, suite: str, scratch: Path) -> None:
        """`scratch` is an empty directory, which the caller removes. Raises BedError where the suite can't be read."""
        if not KEYRING.exists():
            raise BedError(f"{KEYRING}: missing; install with: apt-get install debian-archive-keyring")
        self._archives = scratch / "cache/archives"
        (scratch / "lists/partial").mkdir(parents=True)
        (self._archives / "partial").mkdir(parents=True)
        (scratch / "status").touch()
        (scratch / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
        settings = {
            "Dir::Etc::sourcelist": scratch / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": scratch / "lists",
            "Dir::State::status": scratch / "status",
            "Dir::Cache": scratch / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
        }
        self._apt = ["apt-get", "-q", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
        run([*self._apt, "update"], timeout_s=300)

    def download(self, packages: Sequence[str]) -> list[Path]:
        """These packages alone."""
        run([*self._apt, "download", *packages], cwd=self._archives, timeout_s=600)
        return sorted(self._archives.glob("*.deb"))

    def download_with_dependencies(self, packages: Sequence[str]) -> list[Path]:
        """These packages and all that they depend on: the status is empty, as if nothing were installed."""
        flags = ["-y", "--no-install-recommends", "--download-only"]
        run([*self._apt, *flags, "install", *packages], timeout_s=600)
        return sorted(self._archives.glob("*.deb"))


def unpack(archives: Sequence[Path], directory: Path) -> None:
    """Their files, without documentation, and without running their scripts."""
    without = [f"--exclude=./usr/share/{name}" for name in ("doc", "man", "locale", "lintian", "bug", "info")]
    for archive in archives:
        with tempfile.NamedTemporaryFile(suffix=".tar") as plain:
            run(["sh", "-c", 'dpkg-deb --fsys-tarfile "$1" > "$2"', "unpack", archive, plain.name])
            keep = ["--keep-directory-symlink", "--no-same-owner"]
            run(["tar", "-C", directory, "-xf", plain.name, *keep, *without])


def versions(archives: Sequence[Path]) -> str:
    """One line a package: `name version`."""
    return "".join(run(["dpkg-deb", "--show", archive]).replace("\t", " ") for archive in archives)
