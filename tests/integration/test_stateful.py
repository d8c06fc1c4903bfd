"""Identities and their volumes through all that happens to a fleet: killed, hanging, changed, scaled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE_S = 90
# It holds a lock on its volume as long as it lives, and notes there what it found.
HOLDER = """\
import fcntl, http.server, os, pathlib, time
volume = pathlib.Path(os.environ["SHOAL_VOLUME_DATA"])
held = os.open(volume / "held", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    (volume / "two-holders").touch()
with (volume / "starts").open("a") as starts:
    starts.write(f"{os.environ['SHOAL_REPLICA']} {os.environ['SHOAL_ORDINAL']} {os.environ['VERSION']}\\n")
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.environ['SHOAL_REPLICA']} {os.environ['VERSION']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
time.sleep(float(os.environ.get("SLOWLY", "0")))
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""
SPEC = """\
fleet: kept
local: {{port: 0}}
agents:
  front:
    command: [{python}, -m, http.server, $PORT]
    port: 8000
    depends_on: [stock]
  stock:
    command: [{python}, holder.py]
    port: 8001
    public: /stock
    stateful: true
    scale: {count}
    volumes: ["data:/data"]
    sticky: {{header: x-key}}
    health: {{path: /, interval: 200ms, timeout: 1s, retries: 2}}
    stop_grace_period: 1s
    environment: {{VERSION: "{version}", SLOWLY: "{slowly}"}}
"""


class Project:
    """The fleet in a directory of its own."""

    def __init__(self, path: Path, state: Path) -> None:
        self.path, self.state = path, state / "kept"
        self.environment = {**os.environ, "SHOAL_HOME": str(state)}
        (path / "holder.py").write_text(HOLDER)

    def up(self, version: str = "1", count: int = 3, slowly: float = 0) -> None:
        text = SPEC.format(python=sys.executable, version=version, count=count, slowly=slowly)
        (self.path / "shoal.yaml").write_text(text)
        self.shoal("up", "-d", "-y")

    def shoal(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "shoal.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        return json.loads(self.shoal("status", "-o", "json"))

    def ask(self, key: str) -> str:
        request = urllib.request.Request(f"{self.status()['gateway_url']}/stock", headers={"x-key": key})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def volume(self, ordinal: int) -> Path:
        return self.state / "volumes" / "owned" / "stock" / str(ordinal) / "data"

    def starts(self, ordinal: int) -> list[str]:
        return (self.volume(ordinal) / "starts").read_text().splitlines()

    def process(self, ordinal: int) -> psutil.Process:
        """The one process with this identity."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                holds = "holder.py" in process.cmdline() and process.cwd() == str(self.path)
                if holds and process.cmdline()[0] != "/bin/sh" and process.environ()["SHOAL_ORDINAL"] == str(ordinal):
                    found.append(process)
            except (psutil.Error, KeyError):
                continue
        (only,) = found
        return only


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    path = tmp_path / "project"
    path.mkdir()
    made = Project(path, tmp_path / "state")
    try:
        yield made
    finally:
        made.shoal("down", "--volumes", "-y", "--fleet", "kept")


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.1)


def test_an_identity_keeps_its_volume_and_has_one_holder(project: Project) -> None:
    """Killed, hanging, of another version, scaled down and up: each finds what it wrote, and nobody else beside it."""
    project.up(slowly=0.5)
    ready = [line.split() for line in project.shoal("events").splitlines() if " ready " in f" {line} "]
    first_ready = min(index for index, words in enumerate(ready) if any(word.startswith("stock-") for word in words))
    front = next(index for index, words in enumerate(ready) if any(word.startswith("front-") for word in words))
    assert first_ready < front
    who = project.ask("ada")
    for ordinal, blow in ((0, signal.SIGKILL), (1, signal.SIGKILL), (2, signal.SIGSTOP)):
        before = project.process(ordinal)
        before.send_signal(blow)
        until("it was started again", lambda at=ordinal: len(project.starts(at)) == 2)
        assert not before.is_running() or before.status() == psutil.STATUS_ZOMBIE
    until("all are ready, for the gateway too", lambda: project.status()["settled"])
    assert project.ask("ada") == who
    project.up(version="2")
    changed = project.shoal("events").splitlines()
    order = [line for line in changed if "started" in line and "stock-" in line][-3:]
    assert [line.split("stock-", 1)[1][:1].join(("stock-", "")) for line in order] == ["stock-2", "stock-1", "stock-0"]
    assert project.ask("ada") == who.replace(" 1", " 2")
    project.up(version="2", count=1)
    assert project.ask("ada") == "stock-0 2"
    project.up(version="2", count=3)
    assert project.ask("ada") == who.replace(" 1", " 2")
    for ordinal in range(3):
        assert {line.rpartition(" ")[0] for line in project.starts(ordinal)} == {f"stock-{ordinal} {ordinal}"}
        assert not (project.volume(ordinal) / "two-holders").exists()
    project.shoal("down")
    assert len(project.starts(2)) >= 4
    project.shoal("down", "--volumes", "-y")
    assert not (project.state / "volumes").exists()
