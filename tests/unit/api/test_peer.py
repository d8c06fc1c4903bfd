"""Who may speak with the controller: the kernel's word on the user, whatever the socket's mode."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from shoal.api.peer import peer_uid
from shoal.api.queue_admins import QueueAdmins
from shoal.api.server import serve_api
from tests.unit.control.drive import driving

NOBODY = 65534
ASK = """
import os, socket, sys
os.setgid(65534), os.setuid(65534)
asker = socket.socket(socket.AF_UNIX)
asker.connect(sys.argv[1])
asker.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
sys.stdout.write(asker.makefile("rb").read().decode())
"""


def test_the_kernel_says_who_connected() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.getuid()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused_though_the_socket_lets_him() -> None:
    with tempfile.TemporaryDirectory(prefix="shoal-peer-", dir="/tmp") as made:
        directory = Path(made) / "s"
        path = directory / "controller.sock"
        async with driving() as drive, serve_api(drive.controller, path, QueueAdmins(drive.controller, "f", str)):
            for place in (Path(made), directory):
                place.chmod(0o755)
            path.chmod(0o666)
            asker = await asyncio.create_subprocess_exec(
                sys.executable, "-c", ASK, str(path), stdout=asyncio.subprocess.PIPE, cwd="/"
            )
            answer, _ = await asker.communicate()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"you are user 65534" in answer
