"""What `volumes` says in Compose's short form: `NAME:PATH` or `DIRECTORY:PATH`, and whether it may be written to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shoal.spec.values import shown

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?")
_EXPECTED = "expected NAME:PATH or DIRECTORY:PATH, such as stock:/data or ./models:/models:ro"
_HOST = ("/", "./", "../", "~/")


@dataclass(frozen=True, slots=True)
class Volume:
    """One entry. `source` is a volume's name, or with `bound` a path of the host; `path` is where a container has
    it."""

    source: str
    path: str
    bound: bool = False
    read_only: bool = False

    @property
    def variable(self) -> str:
        """The variable that says where it is: a volume's is named after it, a bound directory's after its path."""
        name = self.path.strip("/") if self.bound else self.source
        return f"SHOAL_VOLUME_{re.sub('[^A-Z0-9]', '_', name.upper())}"


def is_host_path(text: str) -> bool:
    """Whether an entry names a file or a directory of the host, rather than a volume."""
    source = text.partition(":")[0]
    return source.startswith(_HOST) or source in (".", "..", "~")


def parse_volume(text: str) -> Volume:
    """Raises ValueError, saying what was found and what was expected."""
    source, _, rest = text.partition(":")
    path, _, option = rest.partition(":")
    bound = is_host_path(text)
    if not source or not path.startswith("/") or "\0" in text:
        raise ValueError(f"found {shown(text)}; {_EXPECTED}")
    if not bound and not _NAME.fullmatch(source):
        raise ValueError(f"{shown(source)} can't be the name of a volume, and a path starts with ./, ../, ~/ or /")
    if option not in ("", "ro", "rw") or text.endswith(":"):
        raise ValueError(f"found {shown(option)} after the path; expected `ro` or `rw`")
    path = path.rstrip("/") or "/"
    if path == "/" or "/../" in f"{path}/":
        raise ValueError(f"found the path {shown(path)}; expected one below /")
    return Volume(source, path, bound, option == "ro")
