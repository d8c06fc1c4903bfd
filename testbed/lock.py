"""requirements.lock by parts: who needs whom stands in uv's notes below each entry."""

from __future__ import annotations

import re
from collections.abc import Iterable

from testbed.commands import BedError


def closure(lock: str, roots: Iterable[str]) -> set[str]:
    """These and all that they need. A root is a package, or who asks for packages: `shoal (pyproject.toml)`.

    Raises BedError where the lock file has nothing of it.
    """
    needed_by = {name: {_normalized(asker) for asker in askers} for name, askers in _askers(lock).items()}
    wanted = {_normalized(root) for root in roots}
    while more := {name for name, askers in needed_by.items() if name not in wanted and askers & wanted}:
        wanted |= more
    if not (found := wanted & needed_by.keys()):
        raise BedError(f"requirements.lock has no package for {', '.join(roots)}; make it anew with: make lock")
    return found


def part_of_lock(lock: str, names: Iterable[str]) -> str:
    """The entries for these packages, however their names are written."""
    wanted = {_normalized(name) for name in names}
    return "".join(f"{entry}\n" for name, entry in _entries(lock) if name in wanted)


def _entries(lock: str) -> list[tuple[str, str]]:
    """Each package's normalized name and lines."""
    found: list[tuple[str, str]] = []
    for line in lock.splitlines():
        if line and not line.startswith((" ", "#")):
            found.append((_normalized(line.partition("==")[0]), line))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line}")
    return found


def _askers(lock: str) -> dict[str, list[str]]:
    """For each package who needs it: `# via one`, or `# via` and a line for each."""
    return {name: re.findall(r"^ +#(?: via)? +(\S.*)$", entry, re.MULTILINE) for name, entry in _entries(lock)}


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
