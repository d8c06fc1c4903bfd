"""A secret of random text is handed to agents that work, print it and crash; then it is looked for everywhere."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shoal.proxy.sockets import reachable_socket

PATIENCE_S = 90
AGENT = """\
import http.server, os, pathlib, sys
value = (pathlib.Path(os.environ["SHOAL_SECRETS"]) / "CANARY").read_text()
assert value == os.environ["CANARY"]
print("I was given", value, flush=True)
if "--crash" in sys.argv:
    sys.exit("it is " + value)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(value.encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""
SPEC = """\
fleet: canary
local: {{port: 0}}
secrets:
  CANARY: {{environment: SOURCE_OF_IT}}
agents:
  web:
    command: [{python}, agent.py]
    port: 8000
    public: /web
    secrets: [{{name: CANARY, as: env}}]
  crashing:
    command: [{python}, agent.py, --crash]
    queue: tasks
    secrets: [{{name: CANARY, as: env}}]
"""


class Place:
    """A project and its state."""

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, path / "state"
        self.said = ""
        (path / "agent.py").write_text(AGENT)
        (path / "shoal.yaml").write_text(SPEC.format(python=sys.executable))

    def shoal(self, *arguments: str, given: str = "", source: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the command line, and keeps what it said."""
        environment = {**os.environ, "SHOAL_HOME": str(self.state)}
        if source is not None:
            environment["SOURCE_OF_IT"] = source
        command = [sys.executable, "-m", "shoal.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.path, env=environment, input=given, capture_output=True, text=True, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
        self.said += f"$ {arguments}\n{done.stdout}{done.stderr}\n"
        return done


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.shoal("down", "--volumes", "-y")


def test_no_place_of_shoals_holds_a_secret(place: Place) -> None:
    """Neither what it says, nor what it stores beside the secrets, nor its processes' arguments, nor Envoy."""
    first, second = secrets.token_hex(12), secrets.token_hex(12)
    assert place.shoal("up", "-d", "--wait-timeout", "8s", source=first).returncode == 1  # one of them crashes
    url = json.loads(place.shoal("status", "-o", "json").stdout)["gateway_url"]
    assert urllib.request.urlopen(f"{url}/web").read() == first.encode()
    place.shoal("secret", "set", "CANARY", "-d", given=second)
    place.shoal("plan", source=first + second)
    for line in (
        "status", "status -o json", "explain web", "events", "logs", "doctor", "config", "config --origin",
        "secret list", "secret list -o json", "queue ls", "plan",
    ):  # fmt: skip
        place.shoal(*line.split())
    assert "I was given ***" in place.said
    assert "it is ***" in place.said
    for secret in (first, second):
        forms = (secret, base64.b64encode(secret.encode()).decode(), urllib.parse.quote(secret))
        assert [form for form in forms if form in place.said] == []
        assert _files_with(place.state, forms) == []
        assert [line for line in _command_lines() if any(form in line for form in forms)] == []
        assert [form for form in forms if form in _envoys_own(place.state)] == []


def _files_with(state: Path, forms: tuple[str, ...]) -> list[str]:
    """The files of the state, those aside that are the secrets' own and what the agents wrote themselves."""
    found: list[str] = []
    for path in state.rglob("*"):
        below = path.relative_to(state).parts[1:]
        own = below[:1] == ("secrets",) or (below[:1] == ("agents",) and "logs" in below) or path.is_symlink()
        if not own and path.is_file() and any(form.encode() in path.read_bytes() for form in forms):
            found.append(str(path))
    return found


def _command_lines() -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            yield " ".join(process.cmdline())
        except psutil.Error:
            continue


def _envoys_own(state: Path) -> str:
    """Envoy's configuration as its admin shows it."""
    place = reachable_socket(state / "canary" / "platform" / "gateway" / "admin.sock", make=False)
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(place))
        admin.sendall(b"GET /config_dump HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: admin.recv(1 << 16), b""))
    assert b'"configs"' in answer
    return answer.decode()
