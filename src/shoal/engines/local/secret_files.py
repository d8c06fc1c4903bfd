"""The files that a replica finds its secrets in: NAME in `$SHOAL_SECRETS`, mode 0400, in memory where there is a place.

The place is a directory of the user's own in a tmpfs: `$XDG_RUNTIME_DIR`, else /dev/shm. It is not written to a disk
but by swapping, and is gone after a restart of the machine, as the replicas are. Where there is no tmpfs (macOS), or
it is full, the files lie in the replica's own directory. There `secrets` is that place, or a link to it, so that every
later controller finds what to remove.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from shoal.engines.local.layout import Layout, directories, file_name, make_private, remove_tree, write_all

LINK = "secrets"
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


def write_secrets(life: Path, memory: Path | None, contents: Mapping[str, bytes]) -> Path:
    """Writes the files for one start, in the place of those of the start before; gives their directory. Raises
    OSError where not even the disk takes them."""
    remove_secrets(life)
    if memory is not None:
        directory = memory / f"{life.parent.parent.name}-{life.name}"
        try:
            _make_ours(memory)
            (life / LINK).symlink_to(directory)  # first, so that no file is ever without a link to it
            remove_tree(directory)
            directory.mkdir(mode=0o700)
            _write_all(directory, contents)
        except OSError:  # full, or somebody else's
            remove_secrets(life)
        else:
            return directory
    directory = make_private(life / LINK)
    _write_all(directory, contents)
    return directory


def remove_secrets(life: Path) -> None:
    """Removes a life's files, wherever they lie."""
    link = life / LINK
    if link.is_symlink():
        place = link.readlink()
        remove_tree(place)
        link.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            place.parent.rmdir()  # the fleet's last one
    else:
        remove_tree(link)


def sweep_secrets(layout: Layout, memory: Path | None) -> None:
    """Removes from memory what no life has a link to: what a state directory left that was deleted by hand."""
    if memory is None or not memory.is_dir():
        return
    linked: set[Path] = set()
    for agent in directories(layout.agents):
        for life in directories(agent / "lives"):
            with contextlib.suppress(OSError):
                linked.add((life / LINK).readlink())
    for directory in directories(memory):
        if directory not in linked:
            remove_tree(directory)
    with contextlib.suppress(OSError):
        memory.rmdir()


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
