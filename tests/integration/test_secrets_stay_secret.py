"""A secret of random text is handed to agents that work, print it and crash; then it is looked for everywhere."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
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
SAYS = (
    "status", "status -o json", "status crashing", "explain web", "explain crashing -o json", "events",
    "events -o json", "logs", "logs -o json", "doctor", "config", "config --origin", "config -o json", "secret list",
    "secret list -o json", "queue ls", "plan", "plan -o json", "rollout status --no-wait", "rollout history",
    "rollout history web -o json",
)  # fmt: skip
SPEC = """\
fleet: canary
local: {{port: 0}}
gateway: {{access_log: true}}
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


def answer_to(asked: urllib.request.Request) -> str:
    """Once there is one: an `up` that failed waited neither for the route nor for who serves it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return urllib.request.urlopen(asked).read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_no_place_of_shoals_holds_a_secret(place: Place) -> None:
    """Neither what it says, nor what it stores beside the secrets, nor its processes' arguments, nor Envoy."""
    first, second = secrets.token_hex(12), secrets.token_hex(12)
    assert place.shoal("up", "-d", "--wait-timeout", "8s", source=first).returncode == 1  # one of them crashes
    url = json.loads(place.shoal("status", "-o", "json").stdout)["gateway_url"]
    asked = urllib.request.Request(f"{url}/web?key={first}", headers={"Authorization": first})
    assert answer_to(asked) == first
    place.shoal("secret", "set", "CANARY", "-d", given=second)
    place.shoal("plan", source=first + second)
    for line in SAYS:
        place.shoal(*line.split())
    place.said += _asked(place.state / "canary" / "controller.sock", "/metrics")
    assert '"path":"/web"' in (place.state / "canary" / "platform" / "gateway" / "access.log").read_text()
    assert "I was given ***" in place.said and "it is ***" in place.said
    assert "shoal_agent_replicas_ready" in place.said
    _assert_nowhere(place, first, second)
    place.said = ""
    psutil.Process(json.loads(place.shoal("status", "-o", "json").stdout)["controller_pid"]).kill()
    for line in SAYS:
        place.shoal(*line.split())
    assert "no controller answers; this is what is kept without it" in place.said and "I was given ***" in place.said
    _assert_nowhere(place, first, second)


def test_an_undo_brings_the_content_back(place: Place) -> None:
    """With the version that had it, to every agent that has the secret; it stays until its source says otherwise."""
    (place.path / "shoal.yaml").write_text(SPEC.format(python=sys.executable).partition("  crashing:")[0])
    first, second, third = (secrets.token_hex(12) for _ in range(3))

    def given() -> str:
        url = json.loads(place.shoal("status", "-o", "json").stdout)["gateway_url"]
        return urllib.request.urlopen(f"{url}/web").read().decode()

    assert place.shoal("up", "-d", source=first).returncode == 0
    assert place.shoal("up", "-d", source=second).returncode == 0
    assert given() == second
    undone = place.shoal("rollout", "undo", "web")
    assert undone.returncode == 0 and "secrets.CANARY: another content" in undone.stderr
    assert given() == first
    assert "No changes." in place.shoal("up", "-d", source=second).stderr
    assert given() == first
    assert place.shoal("up", "-d", source=third).returncode == 0
    assert given() == third
    for content in (first, second, third):
        assert content not in place.said


def _assert_nowhere(place: Place, *contents: str) -> None:
    """In what was said, in what is stored beside the secrets, in any process's arguments and in Envoy."""
    for secret in contents:
        forms = (secret, base64.b64encode(secret.encode()).decode(), urllib.parse.quote(secret))
        assert [form for form in forms if form in place.said] == []
        assert _files_with(place.state, forms) == []
        assert [line for line in _command_lines() if any(form in line for form in forms)] == []
        assert [line for line in _own_environments(place.state) if any(form in line for form in forms)] == []
        assert [form for form in forms if form in _envoys_own(place.state)] == []


def _files_with(state: Path, forms: tuple[str, ...]) -> list[str]:
    """The files of the state, those aside that are the secrets' own and what the agents wrote themselves."""
    found: list[str] = []
    for path in (Path(directory, name) for directory, _, names in os.walk(state) for name in names):
        below = path.relative_to(state).parts[1:]
        own = below[:1] == ("secrets",) or (below[:1] == ("agents",) and "logs" in below) or path.is_symlink()
        with suppress(FileNotFoundError):  # the controller goes on meanwhile, and so do its files
            if not own and path.is_file() and any(form.encode() in path.read_bytes() for form in forms):
                found.append(str(path))
    return found


def _command_lines() -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            yield " ".join(process.cmdline())
        except psutil.Error:
            continue


def _own_environments(state: Path) -> Iterator[str]:
    """The variables of Shoal's own processes: the agents have it as one."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if any(str(state) in word for word in words) and not any("agent.py" in word for word in words):
                yield f"{words} {process.environ()}"
        except psutil.Error:
            continue


def _envoys_own(state: Path) -> str:
    """Envoy's configuration as its admin shows it."""
    answer = _asked(state / "canary" / "platform" / "gateway" / "admin.sock", "/config_dump")
    assert '"configs"' in answer
    return answer


def _asked(place: Path, path: str) -> str:
    """What a server on a Unix socket answers, headers included."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(reachable_socket(place, make=False)))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
