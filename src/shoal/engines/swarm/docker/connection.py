"""Connections to a daemon: the HTTP client's connector, and raw ones for what HTTP can't carry (exec).

Everything is a Unix socket or TCP with or without TLS. `ssh://` becomes a Unix socket too: each connection to it is
given, as it is, to an `ssh HOST docker system dial-stdio` of its own as standard input and output.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

import aiohttp

from shoal.engines.swarm.docker.endpoint import Endpoint
from shoal.errors import EngineUnavailable

CONNECT_S = 5.0
_SSH_CONNECT_S = 20
_END_S = 2.0
_ENDED = "it ended the connection"


class Connections:
    """Opens connections to one endpoint; `close` ends what it needed for that."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._ssh = SshRelay(endpoint) if endpoint.url.scheme == "ssh" else None
        self._tls = endpoint.tls.context() if endpoint.tls is not None else None
        if self._tls is None and endpoint.url.scheme == "https":
            self._tls = ssl.create_default_context()

    @property
    def base_url(self) -> str:
        """What a path is put behind."""
        if self._socket is not None:
            return "http://docker"
        host, port = self.endpoint.address
        name = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{name}:{port}{self.endpoint.url.path.rstrip('/')}"

    @property
    def _socket(self) -> str | None:
        return str(self._ssh.socket) if self._ssh is not None else self.endpoint.socket

    def connector(self) -> aiohttp.BaseConnector:
        """For an aiohttp session; streams stay open for long, so that there is no limit. Needs a running loop."""
        if self._ssh is not None:
            self._ssh.open()
        if self._socket is not None:
            return aiohttp.UnixConnector(self._socket, limit=0)
        return aiohttp.TCPConnector(limit=0, ssl=self._tls or True)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of its own. Raises OSError, TimeoutError among them."""
        async with asyncio.timeout(CONNECT_S):
            if self._socket is not None:
                return await asyncio.open_unix_connection(self._socket)
            host, port = self.endpoint.address
            return await asyncio.open_connection(host, port, ssl=self._tls)

    def trouble(self, error: BaseException) -> EngineUnavailable:
        """What it means that a connection could not be made or broke."""
        said = self._ssh.last_words() if self._ssh is not None else ""
        why = f"{self.endpoint.url.hostname}: {said}" if said else _reason(error, self.endpoint)
        return EngineUnavailable(
            f"Docker at {self.endpoint} can't be reached: {why} (named by {self.endpoint.said_by})"
        )

    def close(self) -> None:
        if self._ssh is not None:
            self._ssh.close()


class SshRelay:
    """A Unix socket in a directory of the user's own behind which ssh leads to the daemon."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._argv = render_ssh(endpoint)
        self._directory = tempfile.TemporaryDirectory(prefix="shoal-ssh-")
        self._errors = Path(self._directory.name, "stderr")
        self.socket = Path(self._directory.name, "docker.sock")
        self._listener: socket.socket | None = None
        self._running: list[subprocess.Popen[bytes]] = []

    def open(self) -> None:
        """Listens, in the running loop."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.socket))
        self._listener.listen()
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def last_words(self) -> str:
        """What ssh complained about last."""
        lines = self._errors.read_text(errors="replace").split("\n") if self._errors.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._directory.cleanup()

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # who knocked has left
            return
        self._running = [process for process in self._running if process.poll() is None]
        with connection, self._errors.open("wb") as errors:
            connection.setblocking(True)
            both = connection.fileno()
            try:
                process = subprocess.Popen(self._argv, stdin=both, stdout=both, stderr=errors, start_new_session=True)
            except OSError as error:
                errors.write(f"{self._argv[0]} can't be started: {error.strerror}".encode())
            else:
                self._running.append(process)


def render_ssh(endpoint: Endpoint) -> list[str]:
    """As the docker command calls it: ssh's own configuration holds, and it must not ask for anything."""
    url = endpoint.url
    user = ["-l", url.username] if url.username else []
    port = ["-p", str(url.port)] if url.port else []
    host = ["--host", f"unix://{url.path}"] if url.path.strip("/") else []
    options = ["-o", f"ConnectTimeout={_SSH_CONNECT_S}", "-o", "BatchMode=yes", "-T"]
    return ["ssh", *user, *port, *options, "--", url.hostname or "", "docker", *host, "system", "dial-stdio"]


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error


def _reason(error: BaseException, endpoint: Endpoint) -> str:
    cause = _cause(error)
    where = endpoint.socket
    match cause:
        case FileNotFoundError():
            return f"{where} does not exist; start Docker, or name another one by DOCKER_HOST or a Docker context"
        case PermissionError():
            return f"you may not use {where}; `sudo usermod -aG docker $USER` lets you from the next log-in on"
        case ConnectionRefusedError():
            return "nothing listens there; start Docker, or name another one by DOCKER_HOST or a Docker context"
        case socket.gaierror():
            return f"the name {endpoint.url.hostname} is not known"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({cause.verify_message}); DOCKER_CERT_PATH names its ca.pem"
        case ssl.SSLError():
            return (
                f"TLS failed ({cause.reason or cause}); DOCKER_CERT_PATH names the directory of ca.pem, cert.pem and "
                "key.pem, and a daemon without TLS needs DOCKER_TLS_VERIFY unset"
            )
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return _ENDED
        case OSError(errno=errno.ECONNRESET | errno.EPIPE):  # aiohttp's own error, which is no ConnectionResetError
            return _ENDED
        case OSError():
            return (cause.strerror or str(cause) or type(cause).__name__).lower()
        case _:
            return str(cause) or type(cause).__name__
