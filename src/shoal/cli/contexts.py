"""How fleets elsewhere are reached: one file a fleet, for its owner alone, below the directory of the state.

The file holds a private key, and is worth as much as a password. What a teammate is given has the same form, with a
certificate of his own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from shoal.cli.home import state_home
from shoal.errors import NotFound, ShoalError

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.api.client import Client
    from shoal.pki import Identity

_DIRECTORY = ".contexts"  # no fleet is called so
_FORM = "shoal-context-1"
_FLEET = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class FleetContext:
    """`addresses` are HOST:PORT of the admin port, any of which may answer; `docker_context` is `None` where the
    environment says which Docker (DOCKER_HOST); `identity` is `Identity.pem` of the role client. A fleet on
    Kubernetes has neither: it is reached by the cluster's API, by the kubeconfig's `context` in the `namespace`."""

    fleet: str
    engine: str
    docker_context: str | None
    addresses: tuple[str, ...]
    identity: str
    context: str | None = None
    namespace: str | None = None

    def __repr__(self) -> str:
        return f"FleetContext({self.fleet!r}, {self.engine!r}, {self.docker_context!r}, {self.addresses!r})"


def save_context(environ: Mapping[str, str], context: FleetContext) -> None:
    """Stores it, in place of an earlier one of the same fleet. Raises ShoalError where it can't be written."""
    path = _path(environ, context.fleet)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        write_private(path.with_suffix(f".{os.getpid()}"), render_context(context)).replace(path)
    except OSError as error:
        raise ShoalError(f"{path} can't be written: {error.strerror or error}") from error


def load_context(environ: Mapping[str, str], fleet: str) -> FleetContext | None:
    """`None` where there is none for this fleet. Raises ShoalError where it can't be read."""
    path = _path(environ, fleet)
    try:
        return parse_context(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ShoalError(f"{path} can't be read: {error}") from error


def known_contexts(environ: Mapping[str, str]) -> list[str]:
    """The names of the fleets that there is one for."""
    try:
        return sorted(path.stem for path in (state_home(environ) / _DIRECTORY).glob("*.json"))
    except OSError:
        return []


def require_context(environ: Mapping[str, str], fleet: str) -> FleetContext:
    """Raises NotFound where there is none."""
    context = load_context(environ, fleet)
    if context is None:
        there = ", ".join(known_contexts(environ)) or "none"
        raise NotFound(f"no context for fleet {fleet!r}; there are: {there}")
    return context


def remove_context(environ: Mapping[str, str], fleet: str) -> None:
    """Forgets it. Raises NotFound where there is none."""
    require_context(environ, fleet)
    _path(environ, fleet).unlink()


def remote_client(environ: Mapping[str, str], context: FleetContext) -> Client:
    """The controller's API over the network; the person's certificate is renewed on the way where it is time."""
    from shoal.api.client import Client
    from shoal.api.remote_line import RemoteLine
    from shoal.pki import Credentials, Identity

    def keep(identity: Identity) -> None:
        save_context(environ, replace(context, identity=identity.pem))

    return Client(RemoteLine(context.addresses, Credentials(Identity.parse(context.identity)), keep))


def render_context(context: FleetContext) -> str:
    """Its file."""
    return json.dumps({"form": _FORM, **asdict(context)}, indent=2) + "\n"


def parse_context(text: str, where: str) -> FleetContext:
    """The other way round. Raises ShoalError, naming `where`, for what is no context."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ShoalError(f"{where} is no context of a fleet: {error}") from error
    values = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if values.get("form") != _FORM:
        raise ShoalError(
            f"{where} is no context of a fleet that this version knows: found the form {values.get('form')!r}, "
            f"expected {_FORM!r}; `shoal context export` writes one"
        )
    fleet, engine, docker_context = (values.get(key) for key in ("fleet", "engine", "docker_context"))
    addresses, identity = values.get("addresses"), values.get("identity")
    if not isinstance(fleet, str) or not _FLEET.fullmatch(fleet):
        raise ShoalError(f"{where}: fleet: found {fleet!r}, expected the name of a fleet")
    if not isinstance(engine, str) or not (docker_context is None or isinstance(docker_context, str)):
        raise ShoalError(f"{where}: engine, docker_context: expected texts")
    if engine == "kubernetes":
        context, namespace = values.get("context"), values.get("namespace")
        if not (context is None or isinstance(context, str)) or not isinstance(namespace, str):
            raise ShoalError(f"{where}: context, namespace: expected texts")
        return FleetContext(fleet, engine, None, (), "", context, namespace)
    if not isinstance(addresses, list) or not addresses or not isinstance(identity, str):
        raise ShoalError(f"{where}: expected addresses and an identity; `shoal context export` writes them")
    return FleetContext(
        fleet, engine, docker_context, tuple(str(each) for each in cast("list[Any]", addresses)), identity
    )


def write_private(path: Path, text: str) -> Path:
    """A new file that nobody else can read at any time. Raises FileExistsError where there is one already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _path(environ: Mapping[str, str], fleet: str) -> Path:
    return state_home(environ) / _DIRECTORY / f"{fleet}.json"
