"""What the first `up` puts on a Swarm: keys of the fleet's own, its controller, and the context by which who typed it
reaches that."""

from __future__ import annotations

import getpass
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from shoal import __version__
from shoal.cli.contexts import FleetContext, load_context, remove_context, save_context
from shoal.control.registries import user_and_password
from shoal.engines.swarm.images import registry_auth
from shoal.engines.swarm.install import Keys, find_keys, install
from shoal.engines.swarm.removal import remove_all
from shoal.errors import Conflict
from shoal.pki import Authority, JoinToken
from shoal.spec.registries import registry_of

if TYPE_CHECKING:
    from shoal.engines.swarm.docker import Docker, Endpoint
    from shoal.spec.model import Fleet

_PERSON_S = 30 * 86400.0  # without being used; use renews it


class SwarmInstaller:
    """See `shoal.cli.swarm.place.Installer`."""

    def __init__(self, environ: Mapping[str, str], docker_context: str | None) -> None:
        self._environ = environ
        self._docker_context = docker_context

    async def install(self, docker: Docker, fleet: Fleet, named: Collection[str], known: Mapping[str, bytes]) -> None:
        """Raises EngineError; Conflict where somebody else was the first at the same time."""
        image = fleet.swarm.image or f"shoal:{__version__}"
        addresses = await _addresses(docker, fleet.swarm.admin_port)
        keys = None
        if await find_keys(docker, fleet.fleet) is None:
            authority = Authority.create(fleet.fleet, time.time())
            self._save_context(authority, addresses)  # first: what is in the Swarm can't be read back
            token = JoinToken.create(authority.certificate_pem)
            keys = Keys(authority.certificate_pem.encode(), authority.key_pem.encode(), str(token).encode())
        await install(docker, fleet.fleet, image, fleet.swarm.admin_port, keys, named, _auth(fleet, image, known))
        if keys is not None and await find_keys(docker, fleet.fleet) != keys.ca_certificate:
            remove_context(self._environ, fleet.fleet)
            raise Conflict(
                f"somebody else started {fleet.fleet} at the same time, with keys of his own: let him give you a "
                f"context by `shoal context export {fleet.fleet} --name YOU`"
            )
        context = load_context(self._environ, fleet.fleet)
        if context is not None and context.addresses != addresses:
            save_context(self._environ, replace(context, addresses=addresses))

    async def remove(self, docker: Docker, fleet: str, *, data: bool) -> None:
        await remove_all(docker, fleet, data=data)

    def _save_context(self, authority: Authority, addresses: tuple[str, ...]) -> None:
        identity = authority.issue("client", getpass.getuser(), now=time.time(), ttl_s=_PERSON_S)
        save_context(
            self._environ, FleetContext(authority.fleet, "swarm", self._docker_context, addresses, identity.pem)
        )


def _auth(fleet: Fleet, image: str, known: Mapping[str, bytes]) -> str | None:
    """For Shoal's own image; a secret that was given by hand nobody can read back, but then Swarm has it already."""
    registry = registry_of(image)
    if registry not in fleet.registries or fleet.registries[registry].secret not in known:
        return None
    secret = fleet.registries[registry].secret
    return registry_auth(registry, *user_and_password(registry, secret, known[secret]))


async def _addresses(docker: Docker, port: int) -> tuple[str, ...]:
    """Where the controller may be, as far as can be told from here: on any manager, or where Docker itself is."""
    managers = [node["ManagerStatus"]["Addr"].rpartition(":")[0] for node in await docker.nodes() if _manages(node)]
    return tuple(f"{host}:{port}" for host in dict.fromkeys([_host_of(docker.endpoint), *managers]))


def _manages(node: Mapping[str, object]) -> bool:
    return bool(node.get("ManagerStatus"))


def _host_of(endpoint: Endpoint) -> str:
    return endpoint.url.hostname or "127.0.0.1"
