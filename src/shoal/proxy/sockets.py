"""Where Unix sockets lie: a path of more than about 100 bytes can't be bound, so a long one gets a short stand-in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from shoal.errors import GatewayError

LONGEST_BYTES = 100  # the kernel's limit is 108 on Linux and 104 on macOS, with the closing zero


def reachable_socket(path: Path, *, make: bool = True) -> Path:
    """The path itself where it is short enough, else one that depends only on it: /tmp/shoal-UID/HASH/NAME.

    Makes the directory (0700), unless told not to. Raises GatewayError if somebody else owns it.
    """
    absolute = path.absolute()
    if len(os.fsencode(absolute)) <= LONGEST_BYTES:
        return absolute
    root, directory = _stand_in(absolute.parent)
    for each in (root, directory):
        if make:
            each.mkdir(mode=0o700, exist_ok=True)
        if make or each.exists():
            _check_private(each)
    return directory / absolute.name


def remove_stand_in(directory: Path) -> None:
    """Removes what stands in for the sockets of a directory, once nobody listens there any more."""
    root, stand_in = _stand_in(directory.absolute())
    with contextlib.suppress(OSError):  # somebody else's, or still in use by another fleet
        if root.lstat().st_uid == os.getuid() and stand_in.lstat().st_uid == os.getuid():
            for socket in stand_in.iterdir():
                if socket.is_socket():
                    socket.unlink()
            stand_in.rmdir()
    with contextlib.suppress(OSError):
        root.rmdir()


def _stand_in(directory: Path) -> tuple[Path, Path]:
    root = Path(f"/tmp/shoal-{os.getuid()}")
    return root, root / hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]


def grpc_address(address: str) -> str:
    """`unix:PATH` with a path that can be bound; any other address as it is."""
    if not address.startswith("unix:"):
        return address
    return f"unix:{reachable_socket(Path(address.removeprefix('unix:')))}"


def _check_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise GatewayError(f"{directory} must be a directory of user {os.getuid()}: remove it")
    if stat.S_IMODE(found.st_mode) != 0o700:
        directory.chmod(0o700)
