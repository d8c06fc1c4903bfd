"""A registry in the bed's network, which asks for a user and a password: for what pulls images.

It is at the bridge's address; nodes of a Swarm know it as `registry:5000`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import tempfile
from pathlib import Path

from testbed.commands import launch, until
from testbed.debian import Apt, unpack
from testbed.swarm.bed import Bed
from testbed.swarm.engine_api import call

PORT = 5000
USER = "shoal"
PASSWORD = "testbed"
_HASH = "$2b$04$xjmIqljkCK7EdcPYClPjienICLZbPaUfu8mx3.Xi8CNhNinnb3b6W"  # bcrypt of it, as htpasswd writes it
_SETTINGS = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {directory}/images}}, delete: {{enabled: true}}}}
http: {{addr: "{address}"}}
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
            try:
                made.rename(root)
            except OSError:
                if not root.exists():  # else another bed's tests were first
                    raise
    return root / "usr/bin/docker-registry"


def start(bed: Bed) -> None:
    """Starts it where it isn't running."""
    if _pid(bed) is not None:
        return
    directory = bed.directory / "registry"
    directory.mkdir(exist_ok=True)
    (directory / "users").write_text(f"{USER}:{_HASH}\n")
    address = f"{bed.bridge_address}:{PORT}"
    (directory / "settings.yml").write_text(_SETTINGS.format(directory=directory, address=address))
    serve = [program(bed.cache), "serve", directory / "settings.yml"]
    launch(["ip", "netns", "exec", bed.fabric, *serve], directory / "pid", directory / "log")
    until(lambda: _pid(bed) and _listens(bed), f"the registry, see {directory / 'log'}", timeout_s=10)


def push(bed: Bed, image: str, name: str) -> None:
    """An image of the first node, as `registry:5000/NAME`, which no node knows it by then. Raises BedError."""
    node, repository = bed.node(1), f"registry:5000/{name.partition(':')[0]}"
    tag = name.partition(":")[2]
    who = {"username": USER, "password": PASSWORD, "serveraddress": "registry:5000"}
    headers = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(who).encode()).decode()}
    call(node, "POST", f"/images/{image}/tag?repo={repository}&tag={tag}")
    call(node, "POST", f"/images/{repository}/push?tag={tag}", headers=headers, timeout_s=300)
    call(node, "DELETE", f"/images/{repository}:{tag}")


def stop(bed: Bed) -> None:
    """Stops it where it runs; what was pushed to it is kept until the bed is purged."""
    pid = _pid(bed)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        until(lambda: _pid(bed) is None, "the registry to end", timeout_s=10)


def _listens(bed: Bed) -> bool:
    try:
        socket.create_connection((bed.bridge_address, PORT), timeout=1).close()
    except OSError:
        return False
    return True


def _pid(bed: Bed) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        pid = int((bed.directory / "registry/pid").read_text())
        if Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].endswith("docker-registry"):
            return pid
    return None
