"""What `tmpfs` says in Compose's short form: `PATH`, or `PATH:size=64Mi`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shoal.spec.values import shown
from shoal.units import parse_memory_bytes


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """One entry: where a container has it, and how much fits in."""

    path: str
    size_bytes: int | None = None

    @property
    def name(self) -> str:
        """Fit for a file, and as part of a variable: `/var/run` is `VAR_RUN`."""
        return re.sub("[^A-Z0-9]", "_", self.path.strip("/").upper())

    @property
    def variable(self) -> str:
        """The variable that says where it is."""
        return f"SHOAL_TMPFS_{self.name}"


def parse_tmpfs(text: str) -> Tmpfs:
    """Raises ValueError, saying what was found and what was expected."""
    path, colon, option = text.partition(":")
    key, _, size = option.partition("=")
    if not path.startswith("/") or "\0" in text:
        raise ValueError(f"found {shown(text)}; expected PATH or PATH:size=64Mi, such as /run")
    if colon and key != "size":
        raise ValueError(f"found {shown(option)} after the path; expected size=64Mi")
    path = path.rstrip("/") or "/"
    if path == "/" or "/../" in f"{path}/":
        raise ValueError(f"found the path {shown(path)}; expected one below /")
    return Tmpfs(path, parse_memory_bytes(size) if colon else None)
