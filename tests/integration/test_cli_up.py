"""`up` and `down` with a real controller, gateway and agents: foreground, background, and after a crash."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest

PATIENCE_S = 90
SERVICE = """\
import http.server, os, signal, sys
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "--broken" in sys.argv:
    sys.exit("there is no model to load")
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""
# Python itself, interrupted before it is ready to run anything, ends with 1.
TELLS_ITS_BEGIN = """
import runpy
print("begun", flush=True)
runpy.run_module("shoal.cli", run_name="__main__", alter_sys=True)
"""
SPEC = """\
fleet: trial
local: {{port: 0}}
agents:
  web:
    command: [{python}, service.py{flags}]
    port: 8000
    public: /web
    health: {{path: /, interval: 200ms}}
    stop_grace_period: {grace}
"""


def hear_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Project:
    """A project of one agent, with a state directory of its own."""

    def __init__(self, path: Path, state: Path) -> None:
        self.path = path
        self.environment = {**os.environ, "SHOAL_HOME": str(state), "TERM": "xterm"}
        (path / "service.py").write_text(SERVICE)
        self.write()

    def write(self, flags: str = "", grace: str = "10s") -> None:
        """The spec, with the agent's flags."""
        (self.path / "shoal.yaml").write_text(SPEC.format(python=sys.executable, flags=flags, grace=grace))

    def shoal(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the command line."""
        command = [sys.executable, "-m", "shoal.cli", *arguments]
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def terminal(self, *arguments: str, program: Sequence[str] = ("-m", "shoal.cli")) -> pexpect.spawn[str]:
        """Runs it on a terminal, whose end it hears of though the tests themselves run under `nohup`."""
        return pexpect.spawn(
            sys.executable,
            [*program, *arguments],
            cwd=str(self.path),
            env=self.environment,
            dimensions=(30, 100),
            encoding="utf-8",
            timeout=PATIENCE_S,
            preexec_fn=hear_hangups,
        )

    def processes(self) -> list[str]:
        """What runs in it or for it, the commands of this test aside."""
        found: list[str] = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if self.environment["SHOAL_HOME"] in " ".join(words) or process.cwd() == str(self.path):
                    found.append(" ".join(words))
            except psutil.Error:
                continue
        return found

    def status(self) -> dict[str, Any]:
        """The fleet as it is."""
        return json.loads(self.shoal("status", "-o", "json").stdout)


def kill_stubborn(project: Path) -> None:
    """What would not listen to SIGTERM, should its test have failed."""
    for process in psutil.process_iter():
        try:
            if "--stubborn" in process.cmdline() and process.cwd() == str(project):
                process.kill()
        except psutil.Error:
            continue


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    path = tmp_path / "project"
    path.mkdir()
    made = Project(path, tmp_path / "state")
    yield made
    kill_stubborn(path)
    made.shoal("down")


def test_background(project: Project) -> None:
    """`up -d` returns when requests are served; again it changes nothing; a bad version fails and the old one serves;
    `down` ends everything."""
    done = project.shoal("up", "-d")
    assert done.returncode == 0, done.stderr
    status = project.status()
    url = status["agents"][0]["url"]
    assert urllib.request.urlopen(url).read() == b"ok"
    first = status["agents"][0]["replicas"][0]["id"]
    assert "No changes." in project.shoal("up", "-d").stderr
    project.write(flags=", --broken")
    done = project.shoal("up", "-d")
    assert done.returncode == 1
    assert "web: failed" in done.stderr
    assert "there is no model to load" in done.stderr
    assert urllib.request.urlopen(url).read() == b"ok"
    assert first in [each["id"] for each in project.status()["agents"][0]["replicas"] if each["ready"]]
    project.write()
    assert project.shoal("up", "-d").returncode == 0
    assert project.shoal("down").stdout == "trial: everything is stopped\n"
    assert project.shoal("down").stdout == "trial: nothing runs here\n"
    assert project.shoal("status").returncode == 1


def test_foreground_drains_at_ctrl_c(project: Project) -> None:
    """Ctrl-C stops agents, gateway and controller, and says so."""
    child = project.terminal("up")
    child.expect("Ctrl-C drains and stops everything")
    pid = project.status()["controller_pid"]
    child.sendintr()
    child.expect("Draining")
    child.expect("Everything is stopped")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert not _alive(pid)
    assert project.shoal("down").stdout == "trial: nothing runs here\n"


@pytest.mark.parametrize("moment_s", [0.3, 0.9, 1.3, 1.8, 2.5])
def test_ctrl_c_at_any_moment_leaves_nothing(project: Project, moment_s: float) -> None:
    """Before the fleet is stored, while the controller starts, while agents do."""
    child = project.terminal("up", program=("-c", TELLS_ITS_BEGIN))
    child.expect("begun")
    time.sleep(moment_s)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, child.signalstatus) in {(130, None), (None, signal.SIGINT)}
    assert project.processes() == []
    assert project.shoal("down").stdout == "trial: nothing runs here\n"


def test_a_closed_terminal_drains_too(project: Project) -> None:
    """Nobody can read any more what happens; it happens all the same."""
    child = project.terminal("up")
    child.expect("Ctrl-C drains and stops everything")
    terminal: Any = child  # its stubs leave `ptyproc` out
    terminal.ptyproc.fileobj.close()
    deadline = time.monotonic() + PATIENCE_S
    while project.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert project.processes() == []
    assert project.shoal("down").stdout == "trial: nothing runs here\n"


def test_a_port_that_is_taken_is_told_within_seconds(project: Project) -> None:
    """By its holder; with the port free again the fleet starts without another word."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = (project.path / "shoal.yaml").read_text().replace("port: 0", f"port: {port}")
        (project.path / "shoal.yaml").write_text(text)
        began = time.monotonic()
        done = project.shoal("up", "-d")
        assert time.monotonic() - began < 30
        assert done.returncode == 1
        assert f"local.port: {port} is used by {psutil.Process().name()} (pid {os.getpid()})" in done.stderr
        assert project.status()["fleet"] == "trial"
    assert project.shoal("up", "-d").returncode == 0


def test_a_controller_of_another_version_is_replaced(project: Project) -> None:
    """It may not read what the new one stores. Replicas run on, and the next command finds nothing to replace."""
    assert project.shoal("up", "-d").returncode == 0
    before = project.status()
    newer = (
        "import sys, shoal; shoal.__version__ = '99.0'; from shoal.cli.main import main; sys.exit(main(['up', '-d']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", newer], cwd=project.path, env=project.environment, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"The controller is of Shoal {before['version']}; one of 99.0 takes its place" in done.stderr
    after = project.status()
    assert after["controller_pid"] != before["controller_pid"]
    assert [each["started_at"] for each in after["agents"][0]["replicas"]] == [
        each["started_at"] for each in before["agents"][0]["replicas"]
    ]
    assert "takes its place" not in project.shoal("up", "-d").stderr
    assert project.status()["controller_pid"] == after["controller_pid"]


def test_a_damaged_state_is_told_and_gone_on_from(project: Project) -> None:
    """Every command says what it is and what to do; done so, the replicas that run are taken up as they are."""
    assert project.shoal("up", "-d").returncode == 0
    before = project.status()
    directory = Path(project.environment["SHOAL_HOME"]) / "trial"
    os.kill(before["controller_pid"], signal.SIGKILL)
    _wait_gone(before["controller_pid"])
    for path in directory.glob("state.db*"):
        path.write_bytes(b"power was cut" * 1000)
    for arguments in (("status",), ("plan",), ("up", "-d"), ("down",), ("rollout", "history"), ("doctor",)):
        done = project.shoal(*arguments)
        assert (arguments, done.returncode) == (arguments, 1)
        assert "it is damaged, while what runs goes on" in done.stderr + done.stdout, done.stderr
        assert "Traceback" not in done.stderr
    (directory / "damaged").mkdir()
    for path in directory.glob("state.db*"):
        path.rename(directory / "damaged" / path.name)
    assert project.shoal("up", "-d").returncode == 0
    after = project.status()

    def lives(view: dict[str, Any]) -> list[tuple[str, float, int]]:
        return [(each["id"], each["started_at"], each["restarts"]) for each in view["agents"][0]["replicas"]]

    assert lives(after) == lives(before)


def test_the_second_ctrl_c_hurries(project: Project) -> None:
    """An agent that does not listen is killed long before its grace period is over."""
    project.write(flags=", --stubborn", grace="5m")
    child = project.terminal("up")
    child.expect("Ctrl-C drains and stops everything")
    child.sendintr()
    child.expect("Draining")
    time.sleep(1)
    began = time.monotonic()
    child.sendintr()
    child.expect("Hurrying")
    child.expect("Everything is stopped")
    child.expect(pexpect.EOF)
    assert time.monotonic() - began < 60


def test_a_killed_controller_leaves_the_fleet(project: Project) -> None:
    """kill -9: requests go on, `status` says so, `up` takes over the same replicas, `down` needs no controller."""
    assert project.shoal("up", "-d").returncode == 0
    before = project.status()
    url = before["agents"][0]["url"]
    os.kill(before["controller_pid"], signal.SIGKILL)
    _wait_gone(before["controller_pid"])
    assert urllib.request.urlopen(url).read() == b"ok"
    done = project.shoal("status")
    assert done.returncode == 0
    assert "without a controller" in done.stdout
    assert project.shoal("up", "-d").returncode == 0
    after = project.status()
    assert [each["id"] for each in after["agents"][0]["replicas"]] == [
        each["id"] for each in before["agents"][0]["replicas"]
    ]
    os.kill(after["controller_pid"], signal.SIGKILL)
    _wait_gone(after["controller_pid"])
    assert project.shoal("down").returncode == 0
    with pytest.raises(OSError):
        urllib.request.urlopen(url)


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False
