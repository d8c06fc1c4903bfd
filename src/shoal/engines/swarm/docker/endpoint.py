"""Which Docker is meant: found as the docker command finds it, so that what works there works here.

The order is its order too: a context that is named, DOCKER_HOST, DOCKER_CONTEXT, the current context of config.json,
and else the socket of this machine.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from shoal.errors import EngineError

DEFAULT_HOST = "unix:///var/run/docker.sock"
_SCHEMES = ("unix", "tcp", "http", "https", "ssh")
_PORT, _TLS_PORT = 2375, 2376


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a TLS connection, those that there are. Without `verify` the daemon's certificate is not checked."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """Raises EngineError where a file can't be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if not self.verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # SSLError is one
            files = ", ".join(str(file) for file in (self.ca, self.certificate, self.key) if file is not None)
            raise EngineError(f"Docker's TLS files can't be used: {files}: {error}") from error
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Docker daemon's address as people write it (`unix://`, `tcp://`, `ssh://`), and who said so."""

    host: str
    tls: Tls | None = None
    said_by: str = "the default"

    def __str__(self) -> str:
        return self.host

    @property
    def url(self) -> SplitResult:
        return urlsplit(self.host)

    @property
    def socket(self) -> str | None:
        """The path of a Unix socket."""
        return self.url.path if self.url.scheme == "unix" else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a TCP address."""
        secure = self.tls is not None or self.url.scheme == "https"
        return self.url.hostname or "localhost", self.url.port or (_TLS_PORT if secure else _PORT)


def find_endpoint(context: str | None, environ: Mapping[str, str]) -> Endpoint:
    """The Docker that `context` names, or that `environ` and the user's files do. Raises EngineError."""
    home = Path(environ.get("HOME") or Path.home())
    directory = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    name, said_by = _context_name(context, environ, directory)
    if name == "default":
        return _checked(_from_environment(environ, directory))
    return _checked(_from_context(name, said_by, directory))


def _context_name(context: str | None, environ: Mapping[str, str], directory: Path) -> tuple[str, str]:
    if context:
        return context, f"the context {context}"
    if environ.get("DOCKER_HOST"):
        return "default", ""
    if named := environ.get("DOCKER_CONTEXT"):
        return named, f"the context {named} (DOCKER_CONTEXT)"
    config = directory / "config.json"
    if config.exists():
        current: object = _read_json(config).get("currentContext")
        if isinstance(current, str) and current:
            return current, f"the current context {current} ({config})"
    return "default", ""


def _from_environment(environ: Mapping[str, str], directory: Path) -> Endpoint:
    """What the docker command calls the context `default`."""
    host = environ.get("DOCKER_HOST", "")
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    tls = None
    if verify or environ.get("DOCKER_TLS"):
        tls = _tls_files(Path(environ.get("DOCKER_CERT_PATH") or directory), verify=verify)
    return Endpoint(host, tls, "DOCKER_HOST") if host else Endpoint(DEFAULT_HOST)


def _from_context(name: str, said_by: str, directory: Path) -> Endpoint:
    contexts = directory / "contexts"
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = contexts / "meta" / digest / "meta.json"
    if not meta.exists():
        known = ", ".join(_context_names(contexts)) or "none"
        raise EngineError(
            f"{said_by}: there is no Docker context {name!r} in {contexts}; known: {known}. "
            f"Make it with `docker context create {name} --docker host=...`"
        )
    docker: Mapping[str, Any] = _read_json(meta).get("Endpoints", {}).get("docker", {})
    files = contexts / "tls" / digest / "docker"
    skip = bool(docker.get("SkipTLSVerify"))
    tls = _tls_files(files, verify=not skip) if skip or files.is_dir() else None
    return Endpoint(str(docker.get("Host") or DEFAULT_HOST), tls, said_by)


def _context_names(contexts: Path) -> list[str]:
    return ["default", *sorted(str(_read_json(meta).get("Name", "")) for meta in contexts.glob("meta/*/meta.json"))]


def _tls_files(directory: Path, *, verify: bool) -> Tls:
    ca, certificate, key = (
        path if (path := directory / name).exists() else None for name in ("ca.pem", "cert.pem", "key.pem")
    )
    return Tls(ca, certificate, key, verify)


def _checked(endpoint: Endpoint) -> Endpoint:
    try:
        scheme, _ = endpoint.url.scheme, endpoint.url.port
    except ValueError as error:
        raise EngineError(f"{endpoint.said_by}: {endpoint.host!r} is no Docker host: {error}") from error
    if scheme not in _SCHEMES:
        expected = ", ".join(f"{known}://" for known in ("unix", "tcp", "ssh"))
        raise EngineError(f"{endpoint.said_by}: {endpoint.host!r} is no Docker host; expected {expected}")
    return endpoint


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: can't be read as Docker's JSON: {error}") from error
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}
