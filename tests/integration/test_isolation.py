"""Who can reach what of a running fleet: files and sockets are its user's, ports are loopback's, the broker wants a
password."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

PATIENCE_S = 90
AGENT = """\
import http.server, os
if "PORT" in os.environ:
    http.server.ThreadingHTTPServer(
        ("127.0.0.1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler
    ).serve_forever()
import time
time.sleep(600)
"""
SPEC = """\
fleet: alone
local: {{port: 0}}
gateway: {{access_log: true}}
metrics: {{port: {metrics}}}
agents:
  web: {{command: [{python}, agent.py], port: 8000, public: /web, health: /, calls: [inner], publishes: [tasks]}}
  inner: {{command: [{python}, agent.py], port: 8001, health: /}}
  work: {{command: [{python}, agent.py], queue: tasks}}
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The state directory of a fleet that has everything that listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        metrics = probe.getsockname()[1]
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "shoal.yaml").write_text(SPEC.format(python=sys.executable, metrics=metrics))
    environment = {**os.environ, "SHOAL_HOME": str(tmp_path / "home")}

    def shoal(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "shoal.cli", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    before = os.umask(0o000)  # the most careless there is
    try:
        done = shoal("up", "-d")
        assert done.returncode == 0, done.stderr
        yield tmp_path / "home" / "alone"
    finally:
        os.umask(before)
        shoal("down", "--volumes", "-y")


def processes(state: Path) -> list[psutil.Process]:
    """Of the fleet, by the state directory in their arguments or their environment."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(state.parent) in word for word in words):
            found.append(process)
    return found


def test_a_fleet_is_its_users_alone(state: Path) -> None:
    """Whatever the umask: no port is open to the outside, no file or socket to others, no queue without a password."""
    listening = {
        (process.name(), each.laddr.ip)
        for process in processes(state)
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert {name.partition("-")[0] for name, _ in listening} >= {"envoy", "nats"}
    assert {address for _, address in listening} == {"127.0.0.1"}
    found = modes(state)
    open_to_others = [
        f"{path} {stat.filemode(mode)}"
        for path, mode in found.items()
        if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) & 0o077
    ]
    assert open_to_others == []
    sockets = [path for path, mode in found.items() if stat.S_ISSOCK(mode)]
    sockets += unix_listeners(state)
    assert {path.name for path in sockets} >= {"controller.sock", "gateways.sock", "admin.sock"}
    for path in sockets:
        assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700), path


def modes(state: Path) -> dict[Path, int]:
    """Of all that is there and stays long enough to be looked at: the controller goes on meanwhile."""
    found = {state: state.lstat().st_mode}
    for directory, directories, files in os.walk(state):
        for path in (Path(directory, name) for name in (*directories, *files)):
            with suppress(FileNotFoundError):
                found[path] = path.lstat().st_mode
    return found


def unix_listeners(state: Path) -> list[Path]:
    """The sockets with a path that the fleet's processes have, wherever they lie."""
    every = [str(each.laddr) for process in processes(state) for each in process.net_connections("unix")]
    return [Path(path) for path in every if path.startswith("/") and Path(path).exists()]


def test_the_broker_says_nothing_without_a_password(state: Path) -> None:
    """Its port refuses; its monitoring port, which asks nobody, shows counts and no password, no URL and no task."""
    config = json.loads((state / "platform" / "broker" / "nats.conf").read_text())
    host, _, port = config["listen"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
        client.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert b'"auth_required":true' in answer and b"-ERR 'Authorization Violation'" in answer
    passwords = [user["password"] for user in config["authorization"]["users"]]
    assert len(passwords) == 3
    for page in ("varz", "connz?auth=true&subs=detail", "jsz?accounts=true&consumers=true&config=true", "subsz?subs=1"):
        with urllib.request.urlopen(f"http://{config['http']}/{page}", timeout=PATIENCE_S) as response:
            shown = response.read().decode()
        assert shown and not [password for password in passwords if password in shown]
