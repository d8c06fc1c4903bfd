"""A real RabbitMQ for tests, as an ordinary process: its own node name, ports on loopback, data in one directory.

    python -m testbed.rabbitmq          unpacks Debian's packages into the cache, if the machine has no RabbitMQ

Debian's package starts a system service when it is installed; unpacked without its scripts it starts nothing. So the
server is taken from where the machine has it, else from `~/.cache/shoal-testbed/rabbitmq`, which `unpack` fills. Its
epmd, which an Erlang node can't do without and would leave running, is started here too, on a port of its own.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from testbed.commands import run
from testbed.debian import Apt

CACHE = Path("~/.cache/shoal-testbed/rabbitmq").expanduser()
PACKAGES = (
    "rabbitmq-server", "erlang-base", "erlang-asn1", "erlang-crypto", "erlang-eldap", "erlang-inets", "erlang-mnesia",
    "erlang-os-mon", "erlang-parsetools", "erlang-public-key", "erlang-runtime-tools", "erlang-ssl",
    "erlang-syntax-tools", "erlang-tools", "erlang-xmerl",
)  # fmt: skip
MISSING = (
    "there is no RabbitMQ on this machine: `python -m testbed.rabbitmq` unpacks Debian's packages into "
    f"{CACHE} (it installs nothing), or install rabbitmq-server"
)
CONSUMER_TIMEOUT_S = 5
_START_S = 90.0
_STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Installed:
    """Where the server's scripts and Erlang are."""

    scripts: Path
    erlang: Path


def find_rabbitmq() -> Installed | None:
    """The machine's own, else what was unpacked; None where neither is."""
    for root in (Path("/"), CACHE / "root"):
        scripts = sorted((root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
        erlang = root / "usr/lib/erlang"
        if scripts and any(erlang.glob("erts-*/bin/erlexec")):
            return Installed(scripts[-1], erlang)
    return None


def unpack() -> Installed:
    """Fetches and unpacks Debian's packages, without running their scripts; what is there already stays."""
    found = find_rabbitmq()
    if found is not None:
        return found
    partial = CACHE / "root.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        for package in Apt("bookworm", Path(scratch)).download(PACKAGES):
            run(["dpkg-deb", "-x", str(package), str(partial)])
    partial.rename(CACHE / "root")
    found = find_rabbitmq()
    assert found is not None
    return found


class RabbitMq:
    """One node. `port` is AMQP's, `management_port` the HTTP API's, both on `host`; the administrator is `admin`,
    password `admin`.

    `user(...)` makes another. A node that was killed starts again with what it had.
    """

    def __init__(self, directory: Path, installed: Installed, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port, self.management_port, self._epmd_port, self._dist_port = _free_ports(4)
        self._directory, self._installed, self._name = directory, installed, f"shoal{self.port}@localhost"
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "definitions.json").write_text(json.dumps(_definitions()))
        (directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (directory / "advanced.config").write_text(
            "[{rabbit, [{quorum_tick_interval, 200}, {channel_tick_interval, 500}]}].\n"
        )
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {host}:{self.port}\n"
            f"management.tcp.ip = {host}\n"
            f"management.tcp.port = {self.management_port}\n"
            f"load_definitions = {directory / 'definitions.json'}\n"
            "collect_statistics_interval = 200\n"  # 5 s elsewhere, and so is the next one
            f"consumer_timeout = {CONSUMER_TIMEOUT_S * 1000}\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
        )
        shim = directory / "bin" / "erl"  # the one that is unpacked looks for Erlang in /usr
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f'#!/bin/sh\nexec "{self._erts}/erlexec" "$@"\n')
        shim.chmod(0o755)

    @property
    def pid(self) -> int:
        """Of the node."""
        assert self._server is not None
        return self._server.pid

    @property
    def runs(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._server is not None

    def start(self, *, wait: bool = True) -> None:
        """Starts the node; with `wait` it takes connections when this returns. Raises RuntimeError if it never does."""
        if self._epmd is None:
            argv = [self._erts / "epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = self._spawn(argv)
        self._server = self._spawn(["/bin/sh", self._installed.scripts / "rabbitmq-server"])
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Until it takes connections and its HTTP API answers."""
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._server is None or self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ did not start; see {self._directory}/node.log")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the node."""
        if self._server is not None:
            self._server.send_signal(signal.SIGKILL)
            self._server.wait(_STOP_S)
            self._server = None

    def close(self) -> None:
        """Nothing of it runs after."""
        self.kill()
        if self._epmd is not None:
            self._epmd.send_signal(signal.SIGKILL)
            self._epmd.wait(_STOP_S)
            self._epmd = None

    def call(self, module: str, function: str, *arguments: str) -> str:
        """What an Erlang function gives in the node, for what no API can do; `arguments` are Erlang terms."""
        cookie = (self._directory / ".erlang.cookie").read_text()
        program = max(self._installed.erlang.glob("lib/erl_interface-*/bin/erl_call"))
        done = subprocess.run(
            [program, "-n", self._name, "-c", cookie, "-a", f"{module} {function} [{','.join(arguments)}]"],
            env=self._environment(), capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    @property
    def _erts(self) -> Path:
        return max(self._installed.erlang.glob("erts-*/bin"))

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            socket.create_connection((self.host, self.port), 1).close()
            connection = http.client.HTTPConnection(self.host, self.management_port, timeout=5)
            try:
                basic = base64.b64encode(b"admin:admin").decode()
                connection.request("GET", "/api/whoami", headers={"Authorization": f"Basic {basic}"})
                return connection.getresponse().status == 200
            finally:
                connection.close()
        return False

    def _spawn(self, argv: list[str | Path]) -> subprocess.Popen[bytes]:
        with (self._directory / "node.log").open("ab") as log:
            return subprocess.Popen(
                argv, cwd=self._directory, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        home = self._directory
        return {
            "PATH": f"{home / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),  # for Erlang's cookie
            "LANG": "C.UTF-8",
            "ROOTDIR": str(self._installed.erlang),
            "BINDIR": str(self._erts),
            "EMU": "beam",
            "PROGNAME": "erl",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
            "detached": "yes",  # the script becomes the node, so that its pid is the node's
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }


def _definitions() -> dict[str, object]:
    """Users: the administrator, and `shoal` with the rights that the documentation asks for a fleet `ware-house`."""
    mine = r"^shoal\.ware-house($|\.)"
    return {
        "users": [
            {"name": "admin", "password_hash": _hashed("admin"), "tags": "administrator"},
            {"name": "shoal", "password_hash": _hashed("s3cret of shoal"), "tags": "management"},
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [
            {"user": "admin", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
            {"user": "shoal", "vhost": "/", "configure": mine, "write": mine, "read": mine},
        ],
    }


def _hashed(password: str) -> str:
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as sockets:
        probes = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


if __name__ == "__main__":
    print(unpack().scripts)
    sys.exit(0)
