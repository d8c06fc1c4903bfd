"""A registry in the bed's network, `registry:5000`, which asks for a user and a password: for what pulls images."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from pathlib import Path

from testbed.commands import launch, until
from testbed.debian import Apt, unpack
from testbed.swarm.bed import Bed

USER = "shoal"
PASSWORD = "testbed"
_HASH = "$2b$04$xjmIqljkCK7EdcPYClPjienICLZbPaUfu8mx3.Xi8CNhNinnb3b6W"  # bcrypt of it, as htpasswd writes it
_SETTINGS = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {directory}/images}}, delete: {{enabled: true}}}}
http: {{addr: "{address}:5000"}}
auth: {{htpasswd: {{realm: testbed, path: {directory}/users}}}}
"""


def program(cache: Path) -> Path:
    """Debian's docker-registry, unpacked; downloaded if it isn't there."""
    root = cache / "docker-registry"
    if not root.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix="registry-") as scratch:
            made = Path(scratch) / "root"
            made.mkdir()
            unpack(Apt("bookworm", Path(scratch) / "apt").download(["docker-registry"]), made)
            made.rename(root)
    return root / "usr/bin/docker-registry"


def start(bed: Bed) -> None:
    """Starts it where it isn't running."""
    if _pid(bed) is not None:
        return
    directory = bed.directory / "registry"
    directory.mkdir(exist_ok=True)
    (directory / "users").write_text(f"{USER}:{_HASH}\n")
    (directory / "settings.yml").write_text(_SETTINGS.format(directory=directory, address=bed.bridge_address))
    serve = [program(bed.cache), "serve", directory / "settings.yml"]
    launch(["ip", "netns", "exec", bed.fabric, *serve], directory / "pid", directory / "log")
    until(lambda: _pid(bed), f"the registry, see {directory / 'log'}", timeout_s=10)


def stop(bed: Bed) -> None:
    """Stops it where it runs; what was pushed to it is kept until the bed is purged."""
    pid = _pid(bed)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        until(lambda: _pid(bed) is None, "the registry to end", timeout_s=10)


def _pid(bed: Bed) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        pid = int((bed.directory / "registry/pid").read_text())
        if Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].endswith("docker-registry"):
            return pid
    return None
