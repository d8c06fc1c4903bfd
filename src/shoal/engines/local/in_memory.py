"""Directories in memory that are one life's own, and go with it: the files of its secrets, and its tmpfs.

The place is a directory of the user's own in a tmpfs: `$XDG_RUNTIME_DIR`, else /dev/shm. It is not written to a disk
but by swapping, and is gone after a restart of the machine, as the replicas are. Where there is no tmpfs (macOS), or
it is full, the files lie in the replica's own directory. There `secrets` and `tmpfs` are that place, or a link to it,
so that every later controller finds what to remove.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from shoal.engines.local.layout import Layout, directories, file_name, make_private, remove_tree, write_all

SECRETS = "secrets"
TMPFS = "tmpfs"
_SHARED_MEMORY = Path("/dev/shm")


def find_memory(layout: Layout, surrounding: Mapping[str, str]) -> Path | None:
    """Where in memory this fleet's files may lie; `None` where there is no such place. Nothing is made."""
    name = f"{file_name(layout.root.name)}-{hashlib.sha256(os.fsencode(layout.root)).hexdigest()[:12]}"
    runtime = surrounding.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and _is_ours(Path(runtime)) and _is_tmpfs(Path(runtime)):
        return Path(runtime) / "shoal" / name
    if _is_tmpfs(_SHARED_MEMORY) and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        return _SHARED_MEMORY / f"shoal-{os.getuid()}" / name
    return None


def shared_memory_bytes() -> int | None:
    """How much this machine's /dev/shm holds in all; `None` where there is none."""
    try:
        return os.statvfs(_SHARED_MEMORY).f_blocks * os.statvfs(_SHARED_MEMORY).f_frsize
    except OSError:
        return None


def write_secrets(life: Path, memory: Path | None, contents: Mapping[str, bytes]) -> Path:
    """Writes NAME with mode 0400 for each, for one start; gives their directory. Raises OSError where not even the disk
    takes them."""
    return _make_anew(life, memory, SECRETS, lambda directory: _write_all(directory, contents))


def make_tmpfs(life: Path, memory: Path | None, names: Iterable[str]) -> Path:
    """Makes these directories, empty, for one start; gives the one above. Raises OSError as `write_secrets` does."""
    return _make_anew(life, memory, TMPFS, lambda directory: [(directory / name).mkdir(mode=0o700) for name in names])


def remove_from_memory(life: Path) -> None:
    """Removes what a life has there, wherever it lies."""
    for name in (SECRETS, TMPFS):
        _remove(life, name)


def sweep_memory(layout: Layout, memory: Path | None) -> None:
    """Removes from memory what no life has a link to: what a state directory left that was deleted by hand."""
    if memory is None or not memory.is_dir():
        return
    linked: set[Path] = set()
    for agent in directories(layout.agents):
        for life in directories(agent / "lives"):
            for name in (SECRETS, TMPFS):
                with contextlib.suppress(OSError):
                    linked.add((life / name).readlink())
    for directory in directories(memory):
        if directory not in linked:
            remove_tree(directory)
    with contextlib.suppress(OSError):
        memory.rmdir()


def _make_anew(life: Path, memory: Path | None, name: str, fill: Callable[[Path], object]) -> Path:
    """The directory of that name, filled, in the place of the one of the start before."""
    _remove(life, name)
    if memory is not None:
        directory = memory / f"{life.parent.parent.name}-{life.name}.{name}"
        try:
            _make_ours(memory)
            (life / name).symlink_to(directory)  # first, so that no file is ever without a link to it
            remove_tree(directory)
            directory.mkdir(mode=0o700)
            fill(directory)
        except OSError:  # full, or somebody else's
            _remove(life, name)
        else:
            return directory
    directory = make_private(life / name)
    fill(directory)
    return directory


def _remove(life: Path, name: str) -> None:
    link = life / name
    if link.is_symlink():
        place = link.readlink()
        remove_tree(place)
        link.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            place.parent.rmdir()  # the fleet's last one
    else:
        remove_tree(link)


def _write_all(directory: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        handle = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        try:
            write_all(handle, content)
        finally:
            os.close(handle)


def _make_ours(memory: Path) -> None:
    """Makes the fleet's directory in memory. Raises OSError where the one above is another user's."""
    memory.parent.mkdir(mode=0o700, exist_ok=True)
    if not _is_ours(memory.parent):
        raise PermissionError(f"{memory.parent} is somebody else's")
    memory.mkdir(mode=0o700, exist_ok=True)


def _is_ours(directory: Path) -> bool:
    """Whether it is a directory of the user's that nobody else may enter."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def _is_tmpfs(directory: Path) -> bool:
    """Whether the file system there is in memory; what can't be told is not."""
    found, longest = "", -1
    try:
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, mounted, kind, *_ = line.split(" ")
            if len(mounted) >= longest and directory.is_relative_to(mounted):
                found, longest = kind, len(mounted)
    except (OSError, ValueError):
        return False
    return found in ("tmpfs", "ramfs")
