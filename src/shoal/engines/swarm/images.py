"""Images: which exactly a service gets, with which credentials it is pulled, and what its own command is."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker, DockerError
from shoal.engines.swarm.render import NOBODY
from shoal.errors import EngineError
from shoal.spec.registries import registry_of

Credentials = Callable[[str], tuple[str, str] | None]


class Images:
    """`credentials` gives user and password by registry, where there are any."""

    def __init__(self, docker: Docker, credentials: Credentials = lambda registry: None) -> None:
        self._docker, self._credentials = docker, credentials

    def check(self, agent: str, image: str | None) -> str:
        """The image of an agent. Raises EngineError where it has none."""
        if image is None:
            raise EngineError(f"agents.{agent}.image: missing; on Swarm an agent is started from an image")
        return image

    async def config(self, image: str) -> Mapping[str, Any]:
        """What the image says of itself; empty where the manager does not have it."""
        try:
            return (await self._docker.image(image))["Config"] or {}
        except DockerError as error:
            if error.status == 404:
                return {}
            raise

    async def command(self, agent: str, image: str) -> tuple[str, ...]:
        """What the image itself starts. Raises EngineError where nobody here knows."""
        config = await self.config(image)
        words = (*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ()))
        if not words:
            raise EngineError(
                f"agents.{agent}.command: missing, and the manager knows of none in the image {image}; a GPU, a queue "
                "and a secret with `as: env` are given to an agent by a script that starts its command, so write it"
            )
        return words

    async def user(self, image: str) -> str:
        """Whom its containers run as: whom it says itself, if that is not root, else nobody."""
        own = str((await self.config(image)).get("User") or "")
        return NOBODY if own.partition(":")[0] in ("", "0", "root") else own

    def auth(self, image: str) -> str | None:
        """The header `X-Registry-Auth` for the registry of an image, where there are credentials for it. Raises what
        those do."""
        registry = registry_of(image)
        known = self._credentials(registry)
        return None if known is None else registry_auth(registry, *known)

    async def renew(self, fleet: str) -> None:
        """What there is of agents is pulled with the credentials of now, where a node needs its image again."""
        for service in await self._docker.services({names.FLEET: fleet}):
            spec = service["Spec"]
            if names.AGENT not in spec["Labels"] or "Replicated" not in spec["Mode"]:
                continue  # a job's run that is written is run again
            if (auth := self.auth(spec["TaskTemplate"]["ContainerSpec"]["Image"])) is not None:
                await self._docker.update_service(service["ID"], lambda same: same, auth=auth)


def registry_auth(registry: str, user: str, password: str) -> str:
    """The header `X-Registry-Auth`."""
    document = {"username": user, "password": password, "serveraddress": registry}
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
