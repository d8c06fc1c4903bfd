"""Somebody who follows a page: in an own directory, with an own SHOAL_HOME and a port that is free on this machine."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.docs.guide import Command, File, Step

PATIENCE_S = 60.0  # a busy machine of two cores
COMMAND_TIMEOUT_S = 60.0
LOOK_AGAIN_S = 0.3
ENDING_S = 10.0
PORT = "8080"  # what the pages say
# Each reader's own, and below those that replicas are given, and any connection before the page's fleet is there.
_PORTS = iter(random.sample(range(10_000, 17_000), 1_000))

_CURL = """\
#!{python}
# Stands in on machines without curl, for what the pages use of it: curl [-s] [-H 'NAME: VALUE'] [-d TEXT] URL
import sys, urllib.error, urllib.request
words = [word for word in sys.argv[1:] if word != "-s"]
data, headers = None, {{}}
if "-H" in words:
    at = words.index("-H")
    name, _, headers[name] = words[at + 1].partition(": ")
    del words[at : at + 2]
if "-d" in words:
    at = words.index("-d")
    data = words[at + 1].encode()
    del words[at : at + 2]
url = words[0] if "://" in words[0] else "http://" + words[0]
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, data, headers))
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.buffer.write(answer.read())
"""


class Disagreement(AssertionError):
    """The page says one thing, Shoal another."""


class Reader:
    """Takes the steps of one page."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._directory = home / "work"
        self._directory.mkdir()
        self._place = home / "place"  # where the last command left the shell
        self._port = str(_free_port())
        self._jobs: list[subprocess.Popen[bytes]] = []
        commands = home / "bin"
        commands.mkdir()
        curl = commands / "curl"
        curl.write_text(_CURL.format(python=sys.executable))
        curl.chmod(0o755)
        path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), str(commands)]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")},
            "PATH": os.pathsep.join(path),
            "SHOAL_HOME": str(home / "state"),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def take(self, step: Step) -> None:
        """One step; raises Disagreement where it doesn't do what the page says."""
        if isinstance(step, File):
            self._write(step)
        else:
            self._type(step)

    def leave(self) -> None:
        """End what a page that was broken off left: background commands, and the fleet."""
        for job in self._jobs:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        for fleet in (self._home / "state").glob("*") if self.left_behind() else ():
            self._run(f"shoal down --volumes -y --fleet {fleet.name}")

    def left_behind(self) -> list[str]:
        """The processes that belong to this reader's fleets, those aside that are just ending."""
        deadline = time.monotonic() + ENDING_S
        while (found := self._processes()) and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN_S)
        return found

    def _processes(self) -> list[str]:
        found: list[str] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SHOAL_HOME", "").startswith(f"{self._home}/"):
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def _write(self, file: File) -> None:
        path = self._directory / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(file.text))
        self._own_port()

    def _type(self, command: Command) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            code, output = self._run(self._here(command.line))
            self._own_port()
            said = output.replace(self._port, PORT)
            fine = (code != 0) == command.fails and command.agrees(said)
            if fine:
                return
            if not command.looks or time.monotonic() > deadline:
                raise Disagreement(
                    f"$ {command.line}\n--- the page shows\n{command.shown}\n--- it exits with {code} and shows\n{said}"
                )
            time.sleep(LOOK_AGAIN_S)

    def _run(self, line: str) -> tuple[int, str]:
        """The shell's exit code and all output. `cd` lasts; `&` leaves a job until the page ends, with an output and a
        place of its own."""
        job = line.endswith("&")
        script = line.removesuffix("&") if job else f"{line}\ncode=$?\npwd > {self._place}\nexit $code"
        output = self._home / (f"output-{len(self._jobs)}" if job else "output")
        with output.open("wb") as stream:
            shell = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if job:
            self._jobs.append(shell)
            return 0, ""
        try:
            code = shell.wait(COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            raise Disagreement(f"$ {line}\ndoes not end; it shows\n{output.read_text()}") from None
        self._directory = Path(self._place.read_text().strip())
        return code, output.read_text()

    def _here(self, text: str) -> str:
        return text.replace(PORT, self._port)

    def _own_port(self) -> None:
        """A fleet that doesn't say its port would take 8080, which may be somebody's."""
        spec = self._directory / "shoal.yaml"
        if spec.exists() and "\nlocal:" not in spec.read_text():
            spec.write_text(f"{spec.read_text().rstrip()}\nlocal: {{port: {self._port}}}\n")


def _free_port() -> int:
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
