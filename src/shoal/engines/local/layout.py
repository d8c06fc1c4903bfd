"""Where the local engine keeps what must outlive a controller; the tree itself is drawn in the package's docstring.

Everything is the user's own (0700, 0600), and a file is replaced as a whole or not at all.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_LOGGER = logging.getLogger("shoal.engines.local")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one fleet's state directory."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def version(self) -> Path:
        return self.root / "version"

    @property
    def agents(self) -> Path:
        return self.root / "agents"

    @property
    def platform(self) -> Path:
        return self.root / "platform"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    def agent(self, agent: str) -> Path:
        return self.agents / agent

    def manifest(self, agent: str) -> Path:
        """The agent's revisions and counts."""
        return self.agent(agent) / "agent.json"

    def run_ids(self, agent: str) -> Path:
        """The newest 2,000 run ids at least that were started, a line each, the oldest first."""
        return self.agent(agent) / "run-ids"

    def life(self, agent: str, identity: str) -> Path:
        """The directory of one replica or one run: `state.json`, the exit statuses, its secrets."""
        return self.agent(agent) / "lives" / file_name(identity)

    def logs(self, agent: str, identity: str | None = None) -> Path:
        """The directory of what a replica or a run wrote, or of all of the agent's."""
        directory = self.agent(agent) / "logs"
        return directory if identity is None else directory / file_name(identity)

    def volume(self, agent: str, name: str, ordinal: int | None) -> Path:
        """A volume is shared by all that name it, save that a stateful agent has one for each ordinal."""
        if ordinal is None:
            return self.volumes / "shared" / name
        return self.volumes / "owned" / agent / str(ordinal) / name


def file_name(identity: str) -> str:
    """An id as one path component."""
    name = quote(identity, safe=":+@=,")
    return name.replace(".", "%2E") if name.startswith(".") else name


def make_private(directory: Path) -> Path:
    """The directory, made with mode 0700 where it was missing, its parents too."""
    missing: list[Path] = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    return missing[0] if missing else directory


def write_whole(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replaces the file (0600) at once. `durable`: on the disk when this returns, else a power cut may lose it."""
    beside = path.with_name(f"{path.name}.new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(handle, content)
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
    beside.replace(path)
    if durable:
        _sync_directory(path.parent)


def write_all(handle: int, content: bytes) -> None:
    """Writes it to the end: a disk that fills up takes a part first, and says so only at the next write."""
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def append_line(path: Path, line: str) -> None:
    """Adds a line, on the disk when this returns."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        write_all(handle, f"{line}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_if_there(path: Path) -> bytes | None:
    """The content, or `None` where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def set_aside(path: Path, now: float) -> Path | None:
    """Keeps a file that can't be read under another name, beside it, and says where; `None` if the disk refuses."""
    aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}")
    try:
        path.replace(aside)
    except OSError as error:
        _LOGGER.warning("%s can't be read, nor be set aside: %s", path, error)
        return None
    _LOGGER.warning("%s can't be read: kept as %s, and made anew from what runs", path, aside.name)
    return aside


def directories(path: Path) -> Iterator[Path]:
    """The directories in it, by name; none if it is missing."""
    if path.is_dir():
        yield from sorted(entry for entry in path.iterdir() if entry.is_dir())


def remove_tree(path: Path) -> None:
    """Deletes it with all that is in it; nothing happens if it is missing."""
    shutil.rmtree(path, ignore_errors=True)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
